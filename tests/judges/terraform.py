"""The modules: format, validation, their own tests with a provider that is made up, and the examples applied."""

import json
import os
import shutil
from pathlib import Path

from cloudformation import ingress
from report import ROOT, copy, run, scratch
from tasks import Task

MODULES = ROOT / "deploy" / "ecs" / "terraform"
# Where people keep providers; into the first three Terraform itself looks without being told.
MIRRORS = [
    "~/.terraform.d/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
    "~/.terraform.d/plugin-cache",
    "/opt/*",
]

# What moto doesn't give back as it was told.
FORGOTTEN = {"aws_ecs_service", "aws_vpc_security_group_ingress_rule"}


def judge(report, surroundings):
    if not shutil.which("terraform"):
        report.skip("the Terraform modules", "no terraform on the path")
        return
    formatted = run("terraform", "fmt", "-check", "-recursive", "-diff", MODULES)
    report.check(formatted.returncode == 0, "terraform fmt", formatted.stdout + formatted.stderr)
    with scratch() as folder:
        modules = copy(MODULES, f"{folder}/terraform")
        if not initialised(modules / "service"):
            report.skip("the Terraform modules", "no AWS provider, neither in a folder of this machine nor from a registry")
            return
        for name in ("container", "service"):
            with report.part(f"terraform test {name}"):
                tests(report, modules / name)
        with report.part("example service"):
            service(report, surroundings, modules / "examples" / "service")
        with report.part("example sidecar"):
            sidecar(report, modules / "examples" / "sidecar")


def environment():
    """Without a configuration of Terraform's that is named and is not there."""
    env = dict(os.environ, TF_IN_AUTOMATION="1", CHECKPOINT_DISABLE="1")
    if not Path(env.get("TF_CLI_CONFIG_FILE", os.devnull)).exists():
        del env["TF_CLI_CONFIG_FILE"]
    return env


def terraform(folder, *words):
    return run("terraform", f"-chdir={folder}", *words, env=environment(), timeout=300)


def mirror():
    """A folder of this machine that has the AWS provider."""
    for pattern in [os.environ.get("TF_PLUGIN_CACHE_DIR", ""), *MIRRORS]:
        place = Path(pattern).expanduser()
        for root in place.parent.glob(place.name) if pattern else []:
            if any(root.glob("*/hashicorp/aws")):
                return [f"-plugin-dir={root}"]
    return []


def initialised(folder):
    made = terraform(folder, "init", "-input=false", "-no-color", *mirror())
    if made.returncode != 0:
        print(made.stderr)
    return made.returncode == 0


def tests(report, folder):
    where = f"terraform test {folder.name}"
    report.check(initialised(folder), where, "terraform init failed")
    said = terraform(folder, "test", "-no-color")
    report.check(said.returncode == 0 and " 0 failed" in said.stdout, where, said.stdout + said.stderr)


def applied(report, folder, variables):
    """Whether the example was made with the variables of its own file, and would be made the same again."""
    where = f"example {folder.name}"
    report.check(initialised(folder), where, "terraform init failed")
    # What a reader starts from; the account's own names win.
    shutil.copy(folder / "terraform.tfvars.example", folder / "terraform.tfvars")
    (folder / "terraform.tfvars.json").write_text(json.dumps(variables))
    valid = terraform(folder, "validate", "-no-color")
    report.check(valid.returncode == 0, where, valid.stdout + valid.stderr)
    made = terraform(folder, "apply", "-auto-approve", "-input=false", "-no-color")
    if not report.check(made.returncode == 0, where, made.stdout + made.stderr):
        return False
    planned = terraform(folder, "plan", "-input=false", "-no-color", "-out=again")
    report.check(planned.returncode == 0, where, planned.stdout + planned.stderr)
    changes = json.loads(terraform(folder, "show", "-json", "again").stdout).get("resource_changes", [])
    differ = [each["address"] for each in changes if each["change"]["actions"] != ["no-op"] and each["type"] not in FORGOTTEN]
    report.equal(differ, [], where, "what a second plan would change")
    return True


def outputs(folder):
    return {name: output["value"] for name, output in json.loads(terraform(folder, "output", "-json").stdout).items()}


def destroyed(report, folder):
    gone = terraform(folder, "destroy", "-auto-approve", "-input=false", "-no-color")
    report.check(gone.returncode == 0, f"example {folder.name}", gone.stdout + gone.stderr)


def service(report, surroundings, folder):
    variables = dict(
        cluster=surroundings.cluster,
        vpc_id=surroundings.vpc,
        subnet_ids=surroundings.subnets,
        prometheus_security_group=surroundings.prometheus,
        discovery={"namespace_id": surroundings.namespace, "namespace_name": "tools.internal"},
    )
    if not applied(report, folder, variables):
        return
    made = outputs(folder)["hammerd"]
    Task(report, "example service", made["task_definition_arn"]).judge()
    ingress(report, "example service", made["security_group_id"], surroundings.prometheus)
    report.equal(made["scrape_name"], "hammerd.tools.internal", "example service", "the name for Prometheus")
    changed(report, folder, made["task_definition_arn"])
    destroyed(report, folder)


def changed(report, folder, before):
    """Another configuration is another revision, which has it."""
    where = "example service, changed"
    config = folder / "hammerd.toml"
    config.write_text(config.read_text().replace('rate = "10/s"', 'rate = "20/s"'))
    task = "module.hammerd.aws_ecs_task_definition.hammerd"
    made = terraform(folder, "apply", "-auto-approve", "-input=false", "-no-color", f"-target={task}")
    if report.check(made.returncode == 0, where, made.stdout + made.stderr):
        after = Task(report, where, "hammerd")
        report.check(after.definition["taskDefinitionArn"] != before, where, f"starts no task: still {before}")
        with scratch() as empty:
            text = after.container(empty).env["HAMMERD_CONFIG_INLINE"]
        report.check('rate = "20/s"' in text, where, f"has the configuration of before: {text}")


def sidecar(report, folder):
    if applied(report, folder, {}):
        Task(report, "example sidecar", outputs(folder)["task_definition_arn"]).judge(sidecar=True)
        destroyed(report, folder)
