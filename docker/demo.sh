#!/bin/sh
# Start compose.demo.yaml: make a fleet of three, start the server, let the devices in.
# The keys go to FLEET_DIR, fleet/demo unless it is set.
set -eu
cd "$(dirname "$0")/.."
FLEET_DIR=${FLEET_DIR:-$PWD/fleet/demo}
RUN_AS=${RUN_AS:-$(id -u):$(id -g)}
export FLEET_DIR RUN_AS
demo() { docker compose --file docker/compose.demo.yaml "$@"; }
operator() { demo run --rm --no-TTY operator "$@"; }

mkdir -p "$FLEET_DIR"
chown "$RUN_AS" "$FLEET_DIR"
if [ ! -e "$FLEET_DIR/fleet.json" ]; then
  # The first name is for devices, the second for the server's own containers.
  operator python -m server_app fleet init --host proxy --host superlink \
    --superlink proxy:9092 --control superlink:8000 --size 3
  operator python -m server_app fleet add small medium large
fi
operator sh -euc 'for name in small medium large; do
  mkdir -p fleet/devices/$name
  tar --extract --file fleet/bundles/$name.tar --directory fleet/devices/$name
done'
demo up --detach --wait superlink superexec proxy
operator python -m server_app fleet register
demo up --detach --wait

cat <<EOF
Server and devices are up. Now, with the same FLEET_DIR and RUN_AS:
  export FLEET_DIR=$FLEET_DIR RUN_AS=$RUN_AS
  docker compose -f docker/compose.demo.yaml run --rm operator flwr run /app fleet --stream
  docker compose -f docker/compose.demo.yaml down --volumes
EOF
