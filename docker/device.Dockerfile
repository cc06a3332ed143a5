# A device: Flower's SuperNode and the process it trains in. For amd64 and arm64, CPU
# only and without Ray. Started by compose.device.yaml; README.md says how to build it.
# A tag moves: for an image that can be built again name it with its digest, as in
# BASE=python:3.11-slim-bookworm@sha256:..., which docker then checks.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS wanted
WORKDIR /wanted
COPY pyproject.toml constraints.txt docker/requirements.py ./
# own-data: for Parquet files and folders of the package `datasets`; 200 MB more.
ARG EXTRAS
RUN python3 requirements.py ${EXTRAS}

FROM ${BASE} AS build
# The newest torch whose arm64 build runs on a Raspberry Pi 4 and is without CUDA.
ARG TORCH=2.9.1
ARG TORCHVISION=0.24.1
# Empty: the index that pip and uv use anyway.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Which processor qemu plays when another kind of machine builds this.
ARG QEMU_CPU
WORKDIR /build
COPY docker/install.sh .
COPY --from=wanted /wanted/out ./
RUN sh install.sh

FROM ${BASE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLWR_HOME=/tmp/flwr \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_TELEMETRY_ENABLED=0
# Whoever owns the unpacked bundle runs this, 1000 unless said otherwise: the first user
# of Raspberry Pi OS and of JetPack.
RUN install --directory --mode=1777 /state
COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/expertfleet
COPY docker/health.sh docker/doctor-first.sh /usr/local/bin/
COPY common common
COPY client_app client_app
USER 1000:1000
HEALTHCHECK --interval=60s --timeout=30s --start-period=300s --start-interval=10s \
    CMD ["health.sh", "grpc", "9099"]
CMD ["python", "-m", "client_app", "--help"]
