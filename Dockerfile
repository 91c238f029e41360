# The image of Lockgate: one static binary and the certificate authorities, nothing else.
#
#   docker build -t lockgate .
#   buildah build -t lockgate --build-arg BINARY=target/image/lockgate .
#
# The second form packs a static binary that is there already and needs no other image and no network; config/image.sh
# makes that binary. Stages that are not used are skipped.
ARG BINARY=

FROM docker.io/library/rust:1.95.0-bookworm AS source
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN binary="$(config/dist.sh)" \
 && install -D "$binary" /out/lockgate \
 && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /out/ca-certificates.crt

FROM scratch AS source-handed-in
ARG BINARY
ARG CA_BUNDLE=target/image/ca-certificates.crt
COPY ${BINARY} /out/lockgate
COPY ${CA_BUNDLE} /out/ca-certificates.crt

FROM source${BINARY:+-handed-in} AS output

FROM scratch
LABEL org.opencontainers.image.title="lockgate" \
      org.opencontainers.image.description="An ingress controller for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=output /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=output /out/lockgate /lockgate
USER 65532:65532
EXPOSE 8080 8443 10254
ENTRYPOINT ["/lockgate"]
CMD ["run"]
