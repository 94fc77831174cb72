"""One module per tab: each lays out its part and wires handlers that translate, not compute."""
