# The whole job in a container:
#   docker build -t vitq .
#   docker run --rm vitq                                              the embedded model
#   docker run --rm -v "$PWD:/data" vitq compile MODEL=deit_tiny_patch16_224 \
#       WEIGHTS=/data/deit.safetensors CALIB=/data/pictures ARTIFACTS=/data/artifacts
# ARM's cross compiler and emulator are inside, so that TARGET=rpi5 compiles and is tried.
FROM python:3.12-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends make g++ g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /vitq
COPY . .
RUN make setup
ENTRYPOINT ["make"]
CMD ["compile"]
