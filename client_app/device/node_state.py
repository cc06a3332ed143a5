"""What a SuperNode remembers of orders and replies: no order is waited for in vain.

A SuperNode fetches one order, has a process started for it, and waits for its reply.
Flower 1.41 knows two ways for that process to fail: it says why, or it is not heard of
for a while after it has taken the order. Where it ends in any other way (killed before
it has the order, asked to end by what guards the memory, gone while it hands its reply
over), the SuperNode waits for ever, and the server takes the device for well. Here an
order on which nobody is at work any more has failed, however that came.
"""

from collections.abc import Sequence
from typing import Any

from client_app.device.superexec import SUPEREXEC
from common.flower_internals import CLIENT_APP_CRASHED_ERROR, InMemoryNodeState, Status

_AT_WORK = (Status.PENDING, Status.STARTING, Status.RUNNING)


class FailingNodeState(InMemoryNodeState):
    """Flower's state of a SuperNode, in which an order that nobody works on has failed.

    Its methods that are public are Flower's.
    """

    def get_messages_legacy(
        self,
        *,
        run_ids: Sequence[int] | None = None,
        is_reply: bool | None = None,
        limit: int | None = None,
    ) -> Sequence[Any]:
        """Return messages; asked for replies, only such as are here whole.

        The SuperNode asks for those twice a second while it waits for one.
        """
        if is_reply:
            SUPEREXEC.check()
            if not self._settle():
                return []
        return super().get_messages_legacy(
            run_ids=run_ids, is_reply=is_reply, limit=limit
        )

    def _settle(self) -> bool:
        """Return whether no reply is on its way; fail what will never have one."""
        at_work = bool(self.get_tasks(statuses=_AT_WORK))
        with self._lock_object_push_sessions, self.lock_msg_store:
            under_way = [
                session_id
                for session_id, session in self._object_push_sessions.items()
                if session.pending_object_ids
            ]
            if at_work:
                return not under_way
            for session_id in under_way:
                self._cleanup_push_session(session_id, cleanup_messages=True)
            runs = set()
            for entry in self.msg_store.values():
                if not entry.message.metadata.reply_to_message_id:
                    entry.is_retrieved = True
                    runs.add(entry.message.metadata.run_id)
            self._store_error_replies(runs, CLIENT_APP_CRASHED_ERROR)
        return True
