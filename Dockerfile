# syntax=docker/dockerfile:1

# Stages: plan the dependencies, build them (cached until Cargo.lock changes), build the workspace, run.
# The image is built and run as:
#
#   docker build -t tidegate .
#   docker run --init=false -p 80:8080 -p 443:8443 -v ./site.yaml:/etc/tidegate/site.yaml:ro tidegate
#
# A site that supervises workers needs their runtime (Python, Node...) in the image as well: start the app's own
# image `FROM` its usual base, and copy /usr/bin/tidegate out of this one.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS toolchain
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake gcc g++ libc6-dev make \
    && rm -rf /var/lib/apt/lists/* \
    && cargo install --locked --version 0.1.78 cargo-chef
WORKDIR /src

FROM toolchain AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM toolchain AS build
COPY --from=plan /src/recipe.json recipe.json
RUN cargo chef cook --release --locked -p tidegate --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked -p tidegate \
    && objcopy --strip-debug target/release/tidegate /tidegate \
    && install -d -o 65532 -g 65532 -m 0700 /skel/var/lib/tidegate \
    && install -d -o 65532 -g 65532 -m 0750 /skel/run/tidegate /skel/var/log/tidegate \
    && install -d -m 0755 /skel/etc/tidegate

FROM debian:${DEBIAN}-slim AS runtime
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 tidegate \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/tidegate --shell /usr/sbin/nologin tidegate
COPY --from=build /skel/ /
COPY --from=build --chmod=0755 /tidegate /usr/bin/tidegate
COPY LICENSE /usr/share/doc/tidegate/LICENSE
USER 65532:65532
ENV RUNTIME_DIRECTORY=/run/tidegate STATE_DIRECTORY=/var/lib/tidegate
WORKDIR /var/lib/tidegate
# Unprivileged by default; Docker lets any user bind low ports too, other runtimes ask for CAP_NET_BIND_SERVICE.
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/usr/bin/tidegate", "status", "-c", "/etc/tidegate/site.yaml"]
# No shell in between: the program is PID 1, gets the signals itself and reaps its workers.
ENTRYPOINT ["/usr/bin/tidegate", "run", "-c", "/etc/tidegate/site.yaml"]
