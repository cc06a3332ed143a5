"""A device imports Flower, torch and the app once for a run, not once a message.

Flower starts a program ``flwr-clientapp`` for every message and finds it through
``PATH``. Three processes take its place:

- *the program of the message* (``bin/flwr-clientapp``, ``hand_over``): the standard
  library only. It hands its arguments over and waits.
- *the resident process* (``keeper``): started by the first message. It has imported
  Flower and torch, and runs nothing that a server sent.
- *the template of a run* (``preloaded_app``): a fork of the resident process that has
  also imported the run's app and read its data. Another run gets another one.

What handles a message is a fork of the template: it runs Flower's own
``flwr-clientapp`` as it is, and ends with the message. So nothing of one message is
left for the next, memory is given back, and one that crashes or is killed takes nothing
along. Whatever of this fails, the program of the message does the work itself.

The resident process ends with the SuperExec that started the message, however that
ends, and when no message has come for a while. Linux only: elsewhere nothing changes.
"""
