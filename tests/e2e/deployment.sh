#!/usr/bin/env bash
# Checks what deploy/ has for systemd, containers, Kubernetes, Prometheus and Alertmanager, with each one's own checker as far as it is
# there; what could not be checked is said.
#
#   tests/e2e/deployment.sh SOURCE_DIRECTORY GRADWARDEND
set -euo pipefail
[[ $# -eq 2 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$1/deploy"
daemon=$2
lint=${GRADWARDEN_LINT_TOOLS:-/nonexistent}
promtool=${GRADWARDEN_PROMTOOL:-$(command -v promtool || true)}
amtool=${GRADWARDEN_AMTOOL:-$(command -v amtool || true)}
failed=0 checked=0
check() {  # check WHAT COMMAND...
  local what=$1 output
  shift
  checked=$((checked + 1))
  if ! output=$("$@" 2>&1); then
    echo "FAILED: $what"
    echo "$output"
    failed=1
  else
    echo "ok: $what"
  fi
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The unit with the program of this build in place of the installed one.
if command -v systemd-analyze >/dev/null; then
  sed "s#/usr/bin/gradwardend#$daemon#" systemd/gradwardend.service >"$work/gradwardend.service"
  check "systemd unit" systemd-analyze verify "$work/gradwardend.service"
  check "systemd unit: exposure at most 2.0" systemd-analyze security --offline=true --threshold=20 "$work/gradwardend.service"
else
  echo "not checked: systemd unit (no systemd-analyze)"
fi
# The configuration of the cluster is one that the daemon takes, but for its files.
mkdir "$work/etc"
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -keyout "$work/etc/tls.key" -out "$work/etc/tls.crt" 2>/dev/null
printf 'read:%s\n' "$(openssl rand -hex 32)" >"$work/etc/tokens"
chmod 600 "$work"/etc/*
sed "s#/etc/gradwarden/[a-z]*/#$work/etc/#; s#/var/lib/gradwarden#$work/data#" k8s/base/gradwardend.yaml >"$work/gradwardend.yaml"
check "configuration for Kubernetes" "$daemon" --config "$work/gradwardend.yaml" --check-config
for file in $(sed -n 's/^resources: \[\(.*\)\]/\1/p' k8s/base/kustomization.yaml | tr -d ','); do
  check "kustomization has $file" test -s "k8s/base/$file"
done

if [[ -x $lint/kubernetes-validate ]]; then
  for file in k8s/base/{namespace,statefulset,services,network-policy,pod-disruption-budget}.yaml; do
    check "$file against the schema of Kubernetes" "$lint/kubernetes-validate" --strict "$file"
  done
  check "Dockerfile" "$lint/hadolint" --ignore DL3008 docker/Dockerfile
  check "YAML files" "$lint/yamllint" -d '{extends: relaxed, rules: {line-length: disable}}' .
else
  echo "not checked: manifests, container file, YAML (no tools; deploy/fetch_lint_tools.sh gets them)"
fi
if [[ -x $promtool ]]; then
  check "Prometheus's configuration" "$promtool" check config --syntax-only prometheus/prometheus.example.yaml
else
  echo "not checked: Prometheus's configuration (no promtool)"
fi
if [[ -x $amtool ]]; then
  check "Alertmanager's configuration" "$amtool" check-config alertmanager/alertmanager.example.yaml
else
  echo "not checked: Alertmanager's configuration (no amtool)"
fi
check "Slurm job's syntax" bash -n slurm/train.sbatch
echo "$checked checks"
exit $failed
