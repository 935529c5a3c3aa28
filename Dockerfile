# flared and flare with exactly the libraries they load, and nothing else.
#
#   docker build -t flare .
#   docker run --read-only -v flare-data:/data -p 8080:8080 -p 8089:8089 flare

FROM debian:bookworm AS build
COPY tools/deps /src/tools/deps
RUN /src/tools/deps build && rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
RUN cmake --preset release -DFLARE_TESTS=OFF && cmake --build build --target flared flare

# The final root: programs, the libraries ldd names (the dynamic loader among them), the authorities
# that TLS trusts, one user, and an empty data directory of its own.
RUN set -eu; \
    mkdir -p /root-fs/usr/bin /root-fs/etc/ssl/certs /root-fs/data /root-fs/tmp; \
    cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/; \
    install -s build/flared build/flare /root-fs/usr/bin/; \
    ldd build/flared build/flare | grep -oE '/[^ :]+\.so[^ :]*' | sort -u | while read -r library; do \
        install -D -m 755 "$(readlink -f "$library")" "/root-fs$library"; \
    done; \
    ln -s usr/bin/flared /root-fs/flared; \
    echo 'flare:x:65532:65532::/data:/nonexistent' >/root-fs/etc/passwd; \
    echo 'flare:x:65532:' >/root-fs/etc/group; \
    chown 65532:65532 /root-fs/data; chmod 700 /root-fs/data; chmod 1777 /root-fs/tmp

FROM scratch
COPY --from=build /root-fs /
ENV PATH=/usr/bin
USER 65532:65532
VOLUME /data
EXPOSE 8080 8089
ENTRYPOINT ["/usr/bin/flared"]
CMD ["--data", "/data", "--http", "0.0.0.0:8080", "--wire", "0.0.0.0:8089"]
