# hammerd as one static binary, alone in an image that runs as nobody in particular and writes nothing.
#
#     docker build --tag hammerd:0.1.0 --build-arg REVISION="$(git rev-parse --short=12 HEAD)" .
#
# docs/deploy/container.md says how to run it. Nothing here is particular to one builder: docker, buildah and podman do.

# What builds: any image with Rust (1.88 or later), a C compiler and glibc's static library, so the official ones that lie on
# Debian. Name it by its digest (rust@sha256:...) for a build that is the same next year.
ARG BUILDER=docker.io/library/rust:1.95-slim-bookworm
# What the binary lies on. It needs nothing; others are for those whose rules ask for a base.
ARG RUNTIME=scratch

# The dependencies, in a stage that changes with Cargo.toml and Cargo.lock alone.
FROM ${BUILDER} AS dependencies
WORKDIR /build
# Features of the build: "http3", or none.
ARG FEATURES=
# Static, so that FROM scratch is enough. The target is named below, so that this does not hold for build scripts, which could
# not load procedural macros then. No path and no time of the build is left in the binary.
ENV CARGO_HOME=/cargo \
    SOURCE_DATE_EPOCH=0 \
    RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/build=hammerd --remap-path-prefix=/cargo=cargo"
COPY Cargo.toml Cargo.lock ./
# Empty sources stand for ours; cargo wants to see every target that Cargo.toml names. What they were built to is removed: the
# real ones may be older.
RUN --mount=type=cache,target=/cargo/registry,sharing=locked \
    mkdir src benches && touch benches/micro.rs benches/side_by_side.rs \
    && printf '//! Empty.\n' >src/lib.rs && printf '//! Empty.\nfn main() {}\n' >src/main.rs \
    && target="$(rustc --print host-tuple)" \
    && cargo build --locked --release --bin hammerd --target "$target" --features "$FEATURES" \
    && cargo clean --locked --release --package hammerd --target "$target" \
    && rm -r src

FROM dependencies AS build
COPY build.rs ./
COPY src src
ARG FEATURES=
# What `hammerd_build_info` says.
ARG REVISION=
RUN --mount=type=cache,target=/cargo/registry,sharing=locked \
    target="$(rustc --print host-tuple)" \
    && HAMMERD_REVISION="$REVISION" cargo build --locked --release --bin hammerd --target "$target" --features "$FEATURES" \
    && cp "target/$target/release/hammerd" /hammerd

FROM ${RUNTIME}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="hammerd" \
      org.opencontainers.image.description="Always-on synthetic HTTP traffic with honest Prometheus metrics" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build --chmod=0555 /hammerd /hammerd
# Stands there until a configuration is mounted over it, so that HAMMERD_CONFIG_INLINE is enough by itself.
COPY --chmod=0444 deploy/container/hammerd.toml /etc/hammerd/hammerd.toml
# In a container, loopback is where no scraper comes.
ENV HAMMERD_CONFIG=/etc/hammerd/hammerd.toml \
    HAMMERD__SERVER__LISTEN=0.0.0.0:9955
# By number: there is no passwd, and Kubernetes can tell that it isn't root.
USER 65532:65532
EXPOSE 9955
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/hammerd", "health"]
ENTRYPOINT ["/hammerd"]
