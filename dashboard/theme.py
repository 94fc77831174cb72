"""The page's look for Gradio: tokens and styles as one text, the theme that points at them, and the chart colours."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).parent / "assets" / "keepmap"
_SANS = (
    "-apple-system",
    "BlinkMacSystemFont",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "Ubuntu",
    "Cantarell",
    "Liberation Sans",
    "DejaVu Sans Condensed",
    "system-ui",
    "sans-serif",
)
_MONO = (
    "ui-monospace",
    "SF Mono",
    "Cascadia Mono",
    "Liberation Mono",
    "Menlo",
    "Consolas",
    "DejaVu Sans Mono",
    "monospace",
)
_VALUES = {
    "body_background_fill": "var(--km-paper)",
    "body_text_color": "var(--km-ink)",
    "body_text_color_subdued": "var(--km-ink-3)",
    "background_fill_primary": "var(--km-surface)",
    "background_fill_secondary": "var(--km-paper)",
    "block_background_fill": "transparent",
    "block_border_color": "var(--km-line)",
    "block_label_background_fill": "transparent",
    "block_label_text_color": "var(--km-ink-2)",
    "block_title_text_color": "var(--km-ink)",
    "block_info_text_color": "var(--km-ink-3)",
    "border_color_primary": "var(--km-line)",
    "border_color_accent": "var(--km-accent)",
    "color_accent_soft": "var(--km-accent-soft)",
    "link_text_color": "var(--km-accent)",
    "link_text_color_hover": "var(--km-accent-hover)",
    "link_text_color_active": "var(--km-accent)",
    "link_text_color_visited": "var(--km-accent)",
    "input_background_fill": "var(--km-surface)",
    "input_background_fill_focus": "var(--km-surface)",
    "input_border_color": "var(--km-line-strong)",
    "input_border_color_focus": "var(--km-accent)",
    "input_border_color_hover": "var(--km-line-strong)",
    "input_placeholder_color": "var(--km-ink-3)",
    "input_shadow": "none",
    "input_shadow_focus": "none",
    "checkbox_background_color": "var(--km-surface)",
    "checkbox_background_color_selected": "var(--km-accent)",
    "checkbox_border_color": "var(--km-line-strong)",
    "checkbox_border_color_selected": "var(--km-accent)",
    "checkbox_label_background_fill": "transparent",
    "checkbox_label_background_fill_hover": "transparent",
    "checkbox_label_background_fill_selected": "transparent",
    "checkbox_label_text_color": "var(--km-ink)",
    "checkbox_label_text_color_selected": "var(--km-ink)",
    "slider_color": "var(--km-accent)",
    "button_primary_background_fill": "var(--km-accent)",
    "button_primary_background_fill_hover": "var(--km-accent-hover)",
    "button_primary_border_color": "transparent",
    "button_primary_text_color": "var(--km-on-accent)",
    "button_primary_text_color_hover": "var(--km-on-accent)",
    "button_secondary_background_fill": "var(--km-surface)",
    "button_secondary_background_fill_hover": "var(--km-surface)",
    "button_secondary_border_color": "var(--km-line-strong)",
    "button_secondary_border_color_hover": "var(--km-accent)",
    "button_secondary_text_color": "var(--km-ink)",
    "button_secondary_text_color_hover": "var(--km-ink)",
    "table_border_color": "var(--km-line)",
    "table_even_background_fill": "transparent",
    "table_odd_background_fill": "transparent",
    "error_background_fill": "var(--km-wrong-soft)",
    "error_border_color": "var(--km-wrong)",
    "error_text_color": "var(--km-wrong)",
}
_SHAPES = {
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0",
    "block_label_border_width": "0px",
    "block_title_text_weight": "600",
    "block_title_text_size": "13px",
    "layout_gap": "16px",
    "form_gap_width": "0px",
    "input_border_width": "1px",
    "input_radius": "6px",
    "input_padding": "8px 10px",
    "input_text_size": "14px",
    "button_large_radius": "6px",
    "button_small_radius": "6px",
    "button_medium_radius": "6px",
    "button_large_text_size": "14px",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "button_transition": "none",
    "checkbox_shadow": "none",
    "checkbox_label_shadow": "none",
    "checkbox_label_border_width": "0px",
    "checkbox_label_padding": "0",
    "container_radius": "6px",
    "embed_radius": "6px",
}


def theme() -> gr.themes.Base:
    """Gradio's plainest theme with every colour pointing at a token; light and dark differ in the tokens only."""
    base = gr.themes.Base(font=list(_SANS), font_mono=list(_MONO), text_size="md", spacing_size="md", radius_size="md")
    known = set(vars(base))
    dark = {f"{name}_dark": value for name, value in _VALUES.items() if f"{name}_dark" in known}
    return base.set(**_VALUES, **dark, **_SHAPES)


@cache
def css() -> str:
    """Tokens first, then the page's own rules, as one text."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in ("tokens.css", "pages.css"))


@cache
def head() -> str:
    """What goes into the page's head: the viewport, and the script that binds keys, links and the theme."""
    script = (ASSETS / "pages.js").read_text(encoding="utf-8")
    return f'<meta name="color-scheme" content="light dark">\n<script>\n{script}\n</script>'


@cache
def palette(*, dark: bool) -> dict[str, str]:
    """The tokens that charts need, by their name without `--km-`; Plotly cannot read CSS variables."""
    text = (ASSETS / "tokens.css").read_text(encoding="utf-8")
    light_part, _, dark_part = text.partition("\n.dark")
    found = dict(re.findall(r"--km-([a-z0-9-]+):\s*(#[0-9a-fA-F]{6})", light_part))
    if dark:
        found |= dict(re.findall(r"--km-([a-z0-9-]+):\s*(#[0-9a-fA-F]{6})", dark_part))
    return found
