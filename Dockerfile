# docker build -t stres .                                                      with torch's CPU build
# docker build -t stres:cuda --build-arg TORCH_INDEX=https://pypi.org/simple . with CUDA (docs/container.md)
FROM debian:bookworm-slim

# What OpenCV's wheel does not bring. Debian keeps one version of a package in a release, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes ca-certificates libgl1 libglib2.0-0 python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/stres \
    && useradd --create-home --uid 1000 user \
    && install --directory --owner user /work
ENV PATH=/opt/stres/bin:$PATH

# Before the source, so that a change of it leaves this layer as it is. pyproject.toml says which versions suffice.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision

COPY pyproject.toml README.md LICENSE /opt/source/
COPY pipelines /opt/source/pipelines
COPY stres_cli /opt/source/stres_cli
RUN pip install --no-cache-dir /opt/source

USER 1000
WORKDIR /work
ENTRYPOINT ["stres"]
