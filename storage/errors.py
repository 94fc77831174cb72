"""Everything that can go wrong between a run and the disk, one class each.

StorageError
├── StoreUnavailable       no store can be opened or used at that address
│   ├── InvalidAddress     text that is not a database URL, or a database that this installation cannot reach
│   ├── StoreMissing       reading was asked for, and there is no store
│   ├── StoreCorrupt       a file that is not a database, is damaged, or is another program's database
│   ├── StoreTooNew        a store that a newer version of Keepmap has written
│   ├── StoreReadOnly      the store can be read and not written
│   ├── StoreLocked        another process held the store for too long
│   └── StoreFull          no room is left on the disk
├── NotFound               no row of that id, or not the owner's
│   ├── RunNotFound
│   ├── ArrayNotFound      the run did not record an array of that name
│   ├── ComparisonNotFound
│   ├── FailureNotFound
│   ├── JobNotFound
│   ├── SpectrumNotFound
│   └── SweepNotFound
├── InvalidCondition       a condition in SQL that the views do not understand
├── NotStorable            a value that cannot be stored and read back unchanged
├── AssetError
│   ├── AssetMissing       the bytes of an image are not kept here, or not any more
│   └── QuotaExceeded      the images would take more room than they are allowed
└── BundleInvalid          a folder that is not an exported comparison, or one that was changed
"""

from __future__ import annotations


class StorageError(Exception):
    """Base of every error raised by `storage`."""


class StoreUnavailable(StorageError):
    """No store can be opened or used at that address."""


class InvalidAddress(StoreUnavailable):
    """Text that is not a database URL, or a database that this installation cannot reach."""


class StoreMissing(StoreUnavailable):
    """Reading was asked for, and there is no store."""


class StoreCorrupt(StoreUnavailable):
    """A file that is not a database, is damaged, or is another program's database."""


class StoreTooNew(StoreUnavailable):
    """A store that a newer version of Keepmap has written."""


class StoreReadOnly(StoreUnavailable):
    """The store can be read and not written."""


class StoreLocked(StoreUnavailable):
    """Another process held the store for too long."""


class StoreFull(StoreUnavailable):
    """No room is left on the disk."""


class NotFound(StorageError):
    """No row of that id, or not the owner's."""


class RunNotFound(NotFound):
    """No run of that id, or not the owner's."""


class ArrayNotFound(NotFound):
    """The run did not record an array of that name."""


class ComparisonNotFound(NotFound):
    """No comparison of that id, or not the owner's."""


class FailureNotFound(NotFound):
    """No failure of that id, or not the owner's."""


class JobNotFound(NotFound):
    """No job of that id, or not the owner's."""


class SpectrumNotFound(NotFound):
    """No decomposition of that request, or not the owner's."""


class SweepNotFound(NotFound):
    """No sweep of that id, or not the owner's."""


class InvalidCondition(StorageError):
    """A condition in SQL that the views do not understand."""


class NotStorable(StorageError):
    """A value that cannot be stored and read back unchanged."""


class AssetError(StorageError):
    """Base of what goes wrong with the bytes of images."""


class AssetMissing(AssetError):
    """The bytes of an image are not kept here, or not any more."""


class QuotaExceeded(AssetError):
    """The images would take more room than they are allowed."""


class BundleInvalid(StorageError):
    """A folder that is not an exported comparison, or one that was changed."""
