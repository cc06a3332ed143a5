"""The task: what a sample is and which classes there are, agreed on once for all."""

from common.task.kinds import (
    Column,
    ImageTask,
    Preprocessing,
    SeriesTask,
    TableTask,
    TextTask,
    stored_type,
)
from common.task.scale import Fixed, Moments, fixed_scale
from common.task.task import Task
from common.task.task_file import parse_task, read_task, task_from_json

__all__ = [
    "Column",
    "Fixed",
    "ImageTask",
    "Moments",
    "Preprocessing",
    "SeriesTask",
    "TableTask",
    "Task",
    "TextTask",
    "fixed_scale",
    "parse_task",
    "read_task",
    "stored_type",
    "task_from_json",
]
