"""Sinks of objects: one or several objects a window, created once under names made of its range.

A new kind of store implements :class:`ObjectStore`. Names, formats, layouts, ids and the meaning of "already
there" are the same for all stores: they are in this package.
"""

from flagstream.sinks.objects.settings import ObjectSettings
from flagstream.sinks.objects.sink import ObjectSink, ObjectStore

__all__ = ["ObjectSettings", "ObjectSink", "ObjectStore"]
