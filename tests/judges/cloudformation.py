"""The templates: cfn-lint, and stacks of them."""

import boto3
import yaml
from moto.cloudformation import cloudformation_backends
from moto.cloudformation.parsing import clean_json
from moto.core.utils import pascal_to_camelcase, remap_nested_keys

import aws
from report import ROOT, run, tool
from tasks import Task

TEMPLATES = ROOT / "deploy" / "ecs" / "cloudformation"
SERVICE, SIDECAR = TEMPLATES / "hammerd.yaml", TEMPLATES / "sidecar.yaml"
CONFIG = '[targets.demo]\nurl = "http://demo.example/"\nrate = "10/s"\n'
BESIDE = '[limits]\nallow_networks = ["127.0.0.0/8"]\n[targets.home]\nurl = "http://127.0.0.1/"\nrate = "5/s"\n'


def judge(report, surroundings):
    lint = run(tool("cfn-lint", "PyPI's cfn-lint"), SERVICE, SIDECAR)
    report.check(lint.returncode == 0, "cfn-lint", lint.stdout + lint.stderr)
    secret = boto3.client("secretsmanager").create_secret(Name="hammerd-config", SecretString=CONFIG)["ARN"]
    with report.part("stack alone"):
        service(report, surroundings, "alone", {"Config": CONFIG, "ScrapeSecurityGroup": surroundings.prometheus})
    with report.part("stack secret"):
        service(report, surroundings, "secret", {"ConfigArn": secret, "ScrapeSeconds": "60", "Architecture": "ARM64"})
    with report.part("stack beside"):
        stack(SIDECAR, "beside", {"Config": BESIDE})
        Task(report, "stack beside", registered("beside")).judge(sidecar=True)
    for template in (SERVICE, SIDECAR):
        endings(report, template)


def stack(template, name, given):
    """What it made: names in the template to what they are called in the account."""
    given = {"Image": aws.IMAGE, "RepositoryArn": aws.REPOSITORY, **given}
    client = boto3.client("cloudformation")
    client.create_stack(
        StackName=name,
        TemplateBody=template.read_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
    )
    made = client.describe_stack_resources(StackName=name)["StackResources"]
    # Of what a condition leaves out moto keeps a nameless rest.
    return {each["LogicalResourceId"]: each.get("PhysicalResourceId") for each in made if "LogicalResourceId" in each}


def registered(name):
    """The stack's task definition, registered once more as the API takes it: moto's stacks keep but a part of one."""
    stacks = cloudformation_backends[aws.ACCOUNT][aws.REGION].stacks.values()
    resources = next(stack for stack in stacks if stack.name == name).resource_map
    properties = clean_json(resources._resource_json_map["TaskDefinition"]["Properties"], resources)
    definition = remap_nested_keys(properties, pascal_to_camelcase)
    return boto3.client("ecs").register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]


def service(report, surroundings, name, given):
    where = f"stack {name}"
    place = {"Cluster": surroundings.cluster, "VpcId": surroundings.vpc, "Subnets": ",".join(surroundings.subnets)}
    made = stack(SERVICE, name, {**place, **given})
    task = Task(report, where, registered(name))
    wanted = given.get("Architecture", "X86_64")
    report.equal(task.definition["runtimePlatform"]["cpuArchitecture"], wanted, where, "the processor")
    task.judge()
    ingress(report, where, made["SecurityGroup"], given.get("ScrapeSecurityGroup"))
    found = boto3.client("ecs").describe_services(cluster=surroundings.cluster, services=[made["Service"]])["services"][0]
    report.equal(found["taskDefinition"], made["TaskDefinition"], where, "the service's task definition")
    report.equal(found["desiredCount"], 1, where, "the service's count")


def ingress(report, where, group, scraper):
    """Nobody comes in but Prometheus, and only to the scrape port."""
    permissions = boto3.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    found = []
    for each in permissions:
        groups = [pair["GroupId"] for pair in each["UserIdGroupPairs"]]
        found.append((each["IpProtocol"], each["FromPort"], each["ToPort"], groups, each["IpRanges"]))
    report.equal(found, [("tcp", 9955, 9955, [scraper], [])] if scraper else [], where, "who may come in")


class Loader(yaml.SafeLoader):
    """Reads the template without its functions."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def endings(report, template):
    """The table of what hammerd takes to end, for every interval that may be chosen."""
    where, template = template.name, yaml.load(template.read_text(), Loader)
    table = template["Mappings"]["Ending"]
    report.equal(sorted(table), sorted(template["Parameters"]["ScrapeSeconds"]["AllowedValues"]), where, "the intervals")
    for interval, row in table.items():
        grace, linger = int(row["Grace"].removesuffix("s")), int(row["Linger"].removesuffix("s"))
        report.check(linger > int(interval), where, f"lingers {linger} s where Prometheus scrapes every {interval}")
        report.check(grace + linger + 2 <= row["StopTimeout"] <= 120, where, f"stopTimeout {row} is too short")
