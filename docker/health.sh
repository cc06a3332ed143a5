#!/bin/bash
# health.sh http PORT PATH | grpc PORT: exit 0 if a service of this container answers.
# It asks and reads an answer, which a process that hangs does not give; without Python,
# whose start costs a small board too much.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/$2"
case $1 in
http)
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$3" >&3
  IFS= read -r -t 5 answer <&3
  [[ $answer == "HTTP/1."?" 200"* ]]
  ;;
grpc)
  # HTTP/2's first words and an empty SETTINGS frame; the answer is the server's own
  # frame, of type 4.
  printf 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0' >&3
  frame=$(timeout 5 head --bytes=9 <&3 | od --address-radix=n --format=x1)
  [[ $frame =~ ^' '[0-9a-f]{2}' '[0-9a-f]{2}' '[0-9a-f]{2}' 04' ]]
  ;;
esac
