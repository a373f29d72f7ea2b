"""Whether a set of Kubernetes objects holds together: valid, selectors that find, ports that exist, a pod that may do nothing but
send, a configuration that hammerd takes, and time enough to end."""

import json
from dataclasses import dataclass, field

import kubernetes_validate

import crds
from daemon import Container, private_network, seconds
from report import scratch

# The oldest that the manifests say they run on, and the newest whose schemas there are.
VERSIONS = ["1.28", kubernetes_validate.latest_version()]
OPERATOR = "monitoring.coreos.com/v1"
WORKLOADS = ("Deployment", "StatefulSet")
# What a pod has left after hammerd's own time, at least.
SPARE_SECONDS = 2


@dataclass
class Given:
    """What is in the cluster before: files by the name of their ConfigMap or Secret, and what an application takes to end."""

    files: dict = field(default_factory=dict)
    application_seconds: int = 0


class World:
    def __init__(self, report, where, documents, given=None):
        self.report = report
        self.where = where
        self.documents = documents
        self.given = given or Given()

    def of(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def check(self, good, what):
        return self.report.check(good, self.where, what)

    def equal(self, got, wanted, what):
        return self.report.equal(got, wanted, self.where, what)

    def judge(self):
        self.schemas()
        self.names()
        self.selectors()
        workloads = [Workload(self, document) for document in self.of(*WORKLOADS)]
        self.check(len(workloads) == 1, f"there are {len(workloads)} workloads")
        for workload in workloads:
            workload.judge()

    def schemas(self):
        operators = [document for document in self.documents if document["apiVersion"] == OPERATOR]
        for document in self.documents:
            if document in operators:
                continue
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                    self.check(True, "")
                except Exception as error:  # Each kind of mistake is an exception of its own, without a common parent.
                    mistake = getattr(error, "message", error)
                    self.check(False, f"{document['kind']} {document['metadata']['name']}, Kubernetes {version}: {mistake}")
        if operators:
            wrong = crds.mistakes(operators)
            self.check(not wrong, "; ".join(wrong))

    def names(self):
        keys = [(document["kind"], document["metadata"]["name"]) for document in self.documents]
        self.check(len(keys) == len(set(keys)), f"two objects of one name in {sorted(keys)}")
        for document in self.documents:
            size = len(json.dumps(document))
            self.check(size < 1_000_000, f"{document['metadata']['name']} is too large to be stored ({size} bytes)")

    def selectors(self):
        """Whatever selects pods selects some that are here, by a port that they have."""
        pods = [workload["spec"]["template"] for workload in self.of(*WORKLOADS)]
        for kind, selector_of, ports_of in (
            ("Service", lambda spec: spec["selector"], lambda spec: [port["targetPort"] for port in spec["ports"]]),
            ("PodDisruptionBudget", lambda spec: spec["selector"]["matchLabels"], lambda _: []),
            ("PodMonitor", lambda spec: spec["selector"]["matchLabels"], monitored_ports),
            ("NetworkPolicy", lambda spec: spec["podSelector"]["matchLabels"], allowed_ports),
            ("Deployment", lambda spec: spec["selector"]["matchLabels"], lambda _: []),
            ("StatefulSet", lambda spec: spec["selector"]["matchLabels"], lambda _: []),
        ):
            for document in self.of(kind):
                spec, name = document["spec"], f"{kind} {document['metadata']['name']}"
                selector = selector_of(spec)
                found = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
                self.check(selector and found, f"{name} selects no pod: {selector}")
                for port in ports_of(spec):
                    here = [name for pod in found for name in port_numbers(pod["spec"])]
                    self.check(port in here, f"{name} names the port {port}, pods have {here}")


def monitored_ports(spec):
    return [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]]


def allowed_ports(spec):
    return [port["port"] for rule in spec["ingress"] for port in rule["ports"]]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def port_numbers(pod):
    return {port["name"]: port["containerPort"] for each in containers(pod) for port in each.get("ports", [])}


class Workload:
    """The pods that run hammerd, alone or beside an application."""

    def __init__(self, world, document):
        self.world = world
        self.spec = document["spec"]
        self.pod = self.spec["template"]["spec"]
        self.hammerd = next(each for each in containers(self.pod) if each["name"] == "hammerd")
        self.alone = len(containers(self.pod)) == 1
        self.replicas = self.spec.get("replicas", 1)
        self.check, self.equal = world.check, world.equal

    def judge(self):
        self.security()
        self.probes()
        self.rollout()
        self.resources()
        for ordinal in range(self.replicas):
            self.configuration(ordinal)
        self.shards()
        if private_network():
            self.life()

    def security(self):
        pod, own = self.pod.get("securityContext", {}), self.hammerd["securityContext"]
        effective = {**pod, **own}
        self.equal(effective.get("runAsNonRoot"), True, "runAsNonRoot")
        self.equal(effective.get("runAsUser"), 65532, "runAsUser")
        self.equal(effective.get("runAsGroup"), 65532, "runAsGroup")
        self.equal(effective.get("seccompProfile"), {"type": "RuntimeDefault"}, "seccompProfile")
        self.equal(own.get("readOnlyRootFilesystem"), True, "readOnlyRootFilesystem")
        self.equal(own.get("allowPrivilegeEscalation"), False, "allowPrivilegeEscalation")
        self.equal(own.get("capabilities"), {"drop": ["ALL"]}, "capabilities")
        self.equal(self.pod.get("automountServiceAccountToken"), False, "automountServiceAccountToken")
        if self.alone:
            self.equal(self.pod.get("enableServiceLinks"), False, "enableServiceLinks")

    def probes(self):
        self.equal(self.probe("livenessProbe"), ("/-/healthy", 9955), "the liveness probe")
        if self.alone:
            self.equal(self.probe("readinessProbe"), ("/-/ready", 9955), "the readiness probe")
        else:
            self.check("readinessProbe" not in self.hammerd, "hammerd's readiness would be the application's")
            self.equal(self.hammerd.get("restartPolicy"), "Always", "the sidecar's restartPolicy")

    def probe(self, name):
        probe = self.hammerd[name]["httpGet"]
        return probe["path"], port_numbers(self.pod).get(probe["port"])

    def rollout(self):
        """Never two at the whole rate at once."""
        if "strategy" in self.spec:
            self.equal(self.spec["strategy"]["rollingUpdate"], {"maxSurge": 0, "maxUnavailable": 1}, "the rollout")
        for budget in self.world.of("PodDisruptionBudget"):
            self.equal(budget["spec"].get("maxUnavailable"), 1, "the disruption budget")

    def resources(self):
        given = self.hammerd["resources"]
        self.check("cpu" not in given["limits"], "a CPU limit makes hammerd late")
        for kind, name in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
            self.check(name in given.get(kind, {}), f"no {kind}.{name}")

    def container(self, folder, ordinal):
        """hammerd as replica `ordinal` is given it."""
        return Container(folder, self.hammerd["args"], self.env(ordinal), self.files())

    def env(self, ordinal):
        fields = {"metadata.labels['apps.kubernetes.io/pod-index']": str(ordinal), "status.podIP": "127.0.0.1"}
        env = {}
        for variable in self.hammerd.get("env", []):
            if "valueFrom" in variable:
                env[variable["name"]] = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            else:
                env[variable["name"]] = variable["value"]
                self.check(isinstance(variable["value"], str), f"{variable['name']} is no string")
        return env

    def files(self):
        """Each mounted folder's files."""
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        files = {}
        for mount in self.hammerd["volumeMounts"]:
            self.check("subPath" not in mount, f"{mount['mountPath']} by subPath never changes")
            self.equal(mount.get("readOnly"), True, f"readOnly of {mount['mountPath']}")
            files[mount["mountPath"]] = self.texts(volumes[mount["name"]])
        return files

    def texts(self, volume):
        name = volume["configMap"]["name"] if "configMap" in volume else volume["secret"]["secretName"]
        for config in self.world.of("ConfigMap"):
            if config["metadata"]["name"] == name:
                return config["data"]
        self.check(name in self.world.given.files, f"there is no {name}")
        return self.world.given.files.get(name, {})

    def configuration(self, ordinal):
        with scratch() as folder:
            said = self.container(folder, ordinal).check()
            self.check(said.returncode == 0, f"hammerd refuses replica {ordinal}: {said.stderr}{said.stdout}")

    def shards(self):
        """An index that no replica has is refused: so the count is the number of replicas, and hammerd looks at both."""
        env = self.env(0)
        if "HAMMERD__SHARD__COUNT" in env:
            self.equal(env["HAMMERD__SHARD__COUNT"], str(self.replicas), "HAMMERD__SHARD__COUNT")
            with scratch() as folder:
                said = self.container(folder, self.replicas).check()
                self.equal(said.returncode, 78, f"the exit code for replica {self.replicas} of {self.replicas}")
        elif "HAMMERD__SHARD__MEMBERS" in env:
            peers = [service for service in self.world.of("Service") if service["spec"].get("clusterIP") == "None"]
            names = [service["metadata"]["name"] for service in peers]
            self.check(env["HAMMERD__SHARD__MEMBERS"].split(".")[0] in names, f"no headless service among {names}")
        else:
            self.check(self.replicas == 1 or not self.alone, f"{self.replicas} replicas each send the whole rate")

    def life(self):
        """Started as the kubelet would, ready by its probes, changed by its ConfigMap, ended by SIGTERM."""
        port = port_numbers(self.pod)["hammerd"]
        with scratch() as folder:
            container = self.container(folder, 0)
            with container.start() as running:
                if not self.check(running.answers(port, "/-/ready"), f"hammerd did not get ready: {running.words()}"):
                    return
                self.equal(running.get(port, "/-/healthy")[0], 200, "/-/healthy")
                self.time_to_end(running.shutdown_seconds(port))
                self.reload(container, running, port)
                code, took = running.terminate(port)
                self.equal(code, 0, f"the exit code after SIGTERM ({running.words()})")
                self.check(took < self.pod["terminationGracePeriodSeconds"], f"ending took {took} s")

    def time_to_end(self, needs):
        given = self.pod["terminationGracePeriodSeconds"]
        needs += self.world.given.application_seconds
        self.check(given >= needs + SPARE_SECONDS, f"terminationGracePeriodSeconds is {given}, and hammerd needs {needs}")

    def reload(self, container, running, port):
        """A target more in the ConfigMap is a target more in the metrics, without a restart."""
        watches = container.env.get("HAMMERD__CONFIG__WATCH", "true") == "true"
        endpoints = [each for monitor in self.world.of("PodMonitor") for each in monitor["spec"]["podMetricsEndpoints"]]
        scrapes = [seconds(endpoint["interval"]) for endpoint in endpoints]
        linger = seconds(running.setting(port, "shutdown", "linger"))
        self.check(all(interval < linger for interval in scrapes), f"scraped every {scrapes} s, lingers {linger} s")
        if not watches:
            return
        config = next(mount for mount in self.files() if mount == "/etc/hammerd")
        text = self.files()[config]["hammerd.toml"]
        added = '\n[targets.added]\nurl = "http://127.0.0.1:8080/added"\nrate = "1/s"\n'
        container.project(config, {"hammerd.toml": text + added})
        seen = running.wait_for(lambda: 'requests_per_second{target="added"}' in running.get(port, "/metrics")[1])
        self.check(seen, f"a changed ConfigMap was not taken over: {running.words()}")
