# The server: Flower's SuperLink and SuperExec with the ServerApp's dependencies; and, as
# target `proxy`, the only door for devices. Started by compose.server.yaml.
ARG BASE=python:3.11-slim-bookworm
ARG PROXY_BASE=debian:bookworm-slim

FROM ${BASE} AS wanted
WORKDIR /wanted
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN python3 requirements.py server

FROM ${BASE} AS build
# One version for server and devices.
ARG TORCH=2.9.1
ARG TORCHVISION=0.24.1
# Empty: the index that pip and uv use anyway.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
COPY docker/install.sh .
COPY --from=wanted /wanted/out ./
RUN sh install.sh

FROM ${PROXY_BASE} AS proxy
# hadolint ignore=DL3008 # Debian's stable release gets security fixes under new versions
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nginx \
    && rm -rf /var/lib/apt/lists/*
COPY docker/nginx.conf /etc/nginx/nginx.conf
# The owner of the server's private key.
USER 1000:1000
EXPOSE 9092
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"]
CMD ["nginx", "-e", "stderr", "-g", "daemon off;"]

FROM ${BASE} AS server
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLWR_HOME=/tmp/flwr \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_TELEMETRY_ENABLED=0
WORKDIR /opt/expertfleet
# Whoever owns the fleet's directory runs this, 1000 unless said otherwise.
RUN install --directory --mode=1777 /database results fleet
COPY --from=build /opt/venv /opt/venv
COPY common common
COPY client_app client_app
COPY server_app server_app
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9099"]
CMD ["python", "-m", "server_app", "--help"]
