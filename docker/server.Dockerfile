# The server: Flower's SuperLink and SuperExec with the ServerApp's dependencies; and, as
# target `proxy`, the only door for devices. Started by compose.server.yaml.
# A tag moves: for an image that can be built again name it with its digest, as in
# BASE=python:3.11-slim-bookworm@sha256:..., which docker then checks.
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
COPY docker/health.sh /usr/local/bin/health.sh
# The owner of the server's private key.
USER 1000:1000
EXPOSE 9092
# Through nginx to the SuperLink and back.
HEALTHCHECK --interval=10s --timeout=10s --start-period=10s \
    CMD ["health.sh", "http", "8080", "/health"]
CMD ["nginx", "-e", "stderr", "-c", "/run/fleet/nginx.conf"]

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
COPY docker/health.sh /usr/local/bin/health.sh
# What `fleet run` signs and sends as well; the operator needs no checkout.
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY client_app client_app
COPY server_app server_app
# The demo's data are made with it.
COPY examples/own_data examples/own_data
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s \
    CMD ["health.sh", "grpc", "9099"]
CMD ["python", "-m", "server_app", "--help"]
