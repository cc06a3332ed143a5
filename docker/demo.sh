#!/bin/sh
# Start compose.demo.yaml: make a fleet of three, start the server, let the devices in.
# The keys go to FLEET_DIR, fleet/demo unless it is set, and so do data for three devices:
# small pictures. For data of your own set SMALL_DATA, MEDIUM_DATA and LARGE_DATA, a folder
# each, and TASK, the task file; all four are absolute paths.
set -eu
cd "$(dirname "$0")/.."
FLEET_DIR=${FLEET_DIR:-$PWD/fleet/demo}
RUN_AS=${RUN_AS:-$(id -u):$(id -g)}
TASK=${TASK:-$FLEET_DIR/demo-data/images/task.toml}
export FLEET_DIR RUN_AS TASK
demo() { docker compose --file docker/compose.demo.yaml "$@"; }
operator() { demo run --rm --no-TTY --use-aliases operator "$@"; }

mkdir -p "$FLEET_DIR"
chown "$RUN_AS" "$FLEET_DIR"
if [ ! -e "$FLEET_DIR/fleet.json" ]; then
  # The first name is for devices, the others for the server's own containers.
  operator python -m server_app fleet init --host proxy --host superlink \
    --host runtime --superlink proxy:9092 --control superlink:8000 \
    --apps operator:8002
  operator python -m server_app fleet add --data-path /data small medium large
fi
if [ ! -e "$FLEET_DIR/demo-data" ]; then
  operator python examples/own_data/make_sites.py fleet/demo-data
fi
operator sh -euc 'for name in small medium large; do
  mkdir -p fleet/devices/$name
  tar --extract --file fleet/bundles/$name.tar --directory fleet/devices/$name
done'
demo up --detach --wait superlink superexec proxy
operator python -m server_app fleet register
demo up --detach --wait

cat <<EOF
Server and devices are up. Now, with the same environment:
  export FLEET_DIR=$FLEET_DIR RUN_AS=$RUN_AS TASK=$TASK
  docker compose -f docker/compose.demo.yaml run --rm --use-aliases operator \
    python -m server_app fleet run --run-config 'task="/task.toml"'
  docker compose -f docker/compose.demo.yaml down --volumes
EOF
