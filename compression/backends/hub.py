"""Where a checkpoint's files lie: a folder, or a hub id at one commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# The hub's client is a dependency of the library, not ours, so its names come from there.
from transformers.utils.hub import (  # type: ignore[attr-defined]
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    hf_api,
)

from compression.errors import ModelUnavailable

ADVICE = "give a directory, a hub id on a machine with a network, or use the embedded model"

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""A name, or an owner and a name."""

WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
"""Files that are fetched: no pickle and no code."""


@dataclass(frozen=True)
class Checkpoint:
    """The files of one state of a model.

    Args:
        source: Folder or hub id.
        commit: The hub's commit, 40 hexadecimal digits; None for a folder.
        is_cut_off: Whether the hub could not be reached, so that only what was fetched before is there.
    """

    source: str
    commit: str | None = None
    is_cut_off: bool = False

    @classmethod
    def of(cls, name: str | Path) -> Checkpoint:
        """Find a folder, or the commit that `id` or `id@revision` names on the hub at this moment.

        All files of a model are then of one state, even when the hub changes meanwhile. Without a network it is the
        state that was fetched last.

        Raises:
            ModelUnavailable: there is no such model or revision, or the hub cannot be reached.
        """
        if str(name) and Path(name).is_dir():
            return cls(str(name))
        source, _, asked = str(name).partition("@")
        if not HUB_ID.fullmatch(source):
            raise ModelUnavailable(
                f"the model {str(name)!r} cannot be loaded: there is no such folder, and it is no hub id; {ADVICE}"
            )
        api, revision = hf_api(), asked or None
        try:
            # Raises where the hub is out of reach; the other one would go on in silence, and ask for files again.
            api.model_info(source, revision=revision)
            return cls(source, api.resolve_revision(source, revision=revision).resolved)
        except GatedRepoError as error:
            raise ModelUnavailable(
                f"the model {source!r} asks on the hub for an agreement first; accept it there and log in, or {ADVICE}"
            ) from error
        except RevisionNotFoundError as error:
            raise ModelUnavailable(
                f"the model {source!r} has no revision {revision!r} on the hub; name a branch, a tag or a commit "
                "behind the @, or leave it out"
            ) from error
        except RepositoryNotFoundError as error:
            raise ModelUnavailable(
                f"there is no model {source!r} on the hub, or it is private; check the id, or {ADVICE}"
            ) from error
        # The client passes on the classes of its HTTP library, which is not ours to name.
        except Exception as error:
            try:
                return cls(
                    source, api.resolve_revision(source, revision=revision, local_files_only=True).resolved, True
                )
            except Exception:
                raise ModelUnavailable(
                    f"the model {str(name)!r} cannot be loaded: the hub cannot be reached, and this state of the model "
                    f"was not fetched before; {ADVICE}"
                ) from error

    def folder(self) -> str:
        """Where the files lie on this machine; a model of the hub is fetched first, weights and settings only.

        Raises:
            ModelUnavailable: the files cannot be fetched.
        """
        if self.commit is None:
            return self.source
        try:
            # No subfolders: conversions to other formats lie there.
            return str(
                hf_api().snapshot_download(
                    self.source,
                    revision=self.commit,
                    allow_patterns=WANTED,
                    ignore_patterns=["*/*"],
                    local_files_only=self.is_cut_off,
                )
            )
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelUnavailable(f"the files of the model {self.source!r} cannot be fetched: {reason}") from error

    def __str__(self) -> str:
        return self.source if self.commit is None else f"{self.source}@{self.commit}"
