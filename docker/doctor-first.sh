#!/bin/sh
# doctor-first.sh COMMAND...: say in the log what on this device bars training, then run
# the command all the same: so the server hears of it, too, as the reason of a refusal.
python -m client_app doctor --state-dir=/state --data-path=/data || true
exec "$@"
