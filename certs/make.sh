#!/bin/bash
# Makes the certificates of the tests. TEST ONLY: the keys are public, in this repository. Never install the CA.
#
#   certs/make.sh           makes everything again, in place
#
# What it makes is committed, so that a test run needs no openssl; run it again only to change a name below.
# Validity ends in 2099, so that no test fails by the calendar (expired.pem has ended on purpose).
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { # FILE
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null ||
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

# A minimal CA database, because only `openssl ca` can set both ends of the validity.
cat >"$work/ca.conf" <<CONF
[ca]
default_ca = test
[test]
database = $work/index
serial = $work/serial
new_certs_dir = $work
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = \${ENV::NAMES}
CONF
: >"$work/index"
echo 1000 >"$work/serial"
export NAMES=DNS:unused

sign() { # REQUEST EXTENSIONS FIRST-DAY LAST-DAY OUT [MORE...]
    openssl ca -batch -notext -config "$work/ca.conf" -in "$1" -extensions "$2" \
        -startdate "${3}000000Z" -enddate "${4}000000Z" -out "$5" "${@:6}" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
}

leaf() { # NAME COMMON-NAME SUBJECT-ALT-NAMES [FIRST-DAY LAST-DAY]
    key "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$2" -out "$work/$1.csr"
    NAMES=$3 sign "$work/$1.csr" leaf "${4:-20250101}" "${5:-20991231}" "$1.pem" -cert ca.pem -keyfile ca.key
}

key ca.key
openssl req -new -key ca.key -subj "/CN=Tidegate test CA (never trust)" -out "$work/ca.csr"
sign "$work/ca.csr" root 20250101 20991231 ca.pem -selfsign -keyfile ca.key

leaf server localhost "DNS:localhost,DNS:*.test.example,DNS:test.example,IP:127.0.0.1,IP:::1"
leaf other other.example "DNS:other.example"
leaf expired expired.test.example "DNS:expired.test.example" 20200101 20210101
key mismatch.key
printf -- '-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n' >garbage.pem

chmod 0600 ./*.key
for name in server other expired; do openssl verify -no_check_time -CAfile ca.pem "$name.pem" >/dev/null; done
