# The context holds the release binary alone: see xtask/src/images.rs.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
COPY --chmod=0755 behalf-sidecar /usr/local/bin/behalf-sidecar
USER 15001:15001
ENTRYPOINT ["/usr/local/bin/behalf-sidecar"]
