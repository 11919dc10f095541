# The context holds the release binary alone: see xtask/src/images.rs.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
COPY --chmod=0755 behalf-operator /usr/local/bin/behalf-operator
USER 15000:15000
ENTRYPOINT ["/usr/local/bin/behalf-operator"]
