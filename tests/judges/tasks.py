"""Whether a registered task definition runs hammerd as it should: nothing but sending, time to end, a configuration that its
execution role may read and hammerd takes, and a health check that answers."""

import ast
import fnmatch
from urllib.parse import unquote

import boto3

import aws
from daemon import Container, PATIENCE_SECONDS, private_network
from report import hammerd, run, scratch

# Fargate kills no later than this after SIGTERM, whatever stopTimeout says.
FARGATE_SECONDS = 120
SPARE_SECONDS = 2

# To pull the image, and to write the log.
PULLS = [
    ("ecr:BatchCheckLayerAvailability", aws.REPOSITORY),
    ("ecr:BatchGetImage", aws.REPOSITORY),
    ("ecr:GetAuthorizationToken", "*"),
    ("ecr:GetDownloadUrlForLayer", aws.REPOSITORY),
]
LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}


class Task:
    def __init__(self, report, where, arn):
        self.report = report
        self.where = where
        self.definition = boto3.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"]
        self.containers = {each["name"]: each for each in self.definition["containerDefinitions"]}
        self.hammerd = self.containers["hammerd"]

    def check(self, good, what):
        return self.report.check(good, self.where, what)

    def equal(self, got, wanted, what):
        return self.report.equal(got, wanted, self.where, what)

    def judge(self, sidecar=False):
        self.security()
        self.roles()
        self.log()
        self.beside_an_application() if sidecar else self.alone()
        self.life()

    def security(self):
        own = self.hammerd
        self.equal(own["user"], "65532:65532", "the user")
        self.equal(own["readonlyRootFilesystem"], True, "readonlyRootFilesystem")
        self.equal(own["linuxParameters"]["capabilities"].get("drop"), ["ALL"], "dropped capabilities")
        self.check(not own["linuxParameters"]["capabilities"].get("add"), "adds capabilities")
        self.check(not own.get("privileged"), "is privileged")
        self.equal([port["containerPort"] for port in own["portMappings"]], [9955], "the ports")
        self.equal(self.definition["networkMode"], "awsvpc", "the network")
        self.equal(self.definition["requiresCompatibilities"], ["FARGATE"], "the launch type")
        self.check(all("CONFIG" not in each["name"] for each in own["environment"]), "the configuration is no secret")

    def roles(self):
        """The execution role may pull the image, read what the task names, write its log, and nothing beside it; hammerd itself has
        no rights."""
        allowed = list(statements(self.definition["executionRoleArn"]))
        self.equal(self.hammerd["image"], aws.IMAGE, "the image")
        rights = [(action, arn) for each in allowed for action in listed(each["Action"]) for arn in listed(each["Resource"])]
        self.equal(sorted(right for right in rights if right[0].startswith("ecr:")), PULLS, "what it may of ECR")
        reads = set()
        for secret in self.hammerd["secrets"]:
            action = "secretsmanager:GetSecretValue" if ":secretsmanager:" in secret["valueFrom"] else "ssm:GetParameters"
            arn = ":".join(secret["valueFrom"].split(":")[:7])
            reads.add(action)
            self.check(may(allowed, action, arn), f"the execution role may not {action} {arn}")
            self.check(not may(allowed, action, arn + "x"), f"the execution role may {action} {arn}x")
        others = {action for action, _ in rights if not action.startswith("ecr:")}
        self.equal(others, reads | LOGS, "what else the execution role may do")
        for statement in allowed:
            wide = "*" in listed(statement["Resource"]) and listed(statement["Action"]) != ["ecr:GetAuthorizationToken"]
            self.check(not wide and not any("*" in action for action in listed(statement["Action"])), f"{statement} is wide")
        if role := self.definition.get("taskRoleArn"):
            rights = [action for statement in statements(role) for action in listed(statement["Action"])]
            self.equal(rights, [], "what the task role may do")

    def log(self):
        groups = boto3.client("logs").describe_log_groups()["logGroups"]
        retention = {group["logGroupName"]: group.get("retentionInDays") for group in groups}
        allowed = list(statements(self.definition["executionRoleArn"]))
        for name, container in self.containers.items():
            options = container["logConfiguration"]["options"]
            group = options["awslogs-group"]
            self.check(retention.get(group), f"the log of {name} goes to {group}, groups with an end are {retention}")
            arn = next((each["arn"] for each in groups if each["logGroupName"] == group), "")
            self.check(may(allowed, "logs:PutLogEvents", arn.removesuffix(":*") + ":log-stream:x"), f"may not write {group}")

    def alone(self):
        self.equal(self.hammerd["essential"], True, "essential")
        self.check("restartPolicy" not in self.hammerd, "an essential container has a restart policy")

    def beside_an_application(self):
        self.equal(self.hammerd["essential"], False, "essential")
        self.equal(self.hammerd["dependsOn"], [{"containerName": "app", "condition": "HEALTHY"}], "what it waits for")
        self.check(self.containers["app"].get("healthCheck"), "the application it waits for has no health check")
        self.equal(self.hammerd["restartPolicy"]["enabled"], True, "whether it is started again")

    def container(self, folder):
        """As ECS starts it: variables, and secrets by their values."""
        env = {each["name"]: each["value"] for each in self.hammerd["environment"]}
        env.update({each["name"]: value(each["valueFrom"]) for each in self.hammerd["secrets"]})
        return Container(folder, self.hammerd["command"], env)

    def life(self):
        with scratch() as folder:
            container = self.container(folder)
            said = container.check()
            self.check(said.returncode == 0, f"hammerd refuses the configuration: {said.stderr}{said.stdout}")
            if not private_network():
                return
            with container.start() as running:
                if not self.check(running.answers(9955, "/-/ready"), f"hammerd did not get ready: {running.words()}"):
                    return
                self.health(container)
                needs, given = running.shutdown_seconds(9955), self.hammerd["stopTimeout"]
                self.check(needs + SPARE_SECONDS <= given <= FARGATE_SECONDS, f"stopTimeout is {given}, and hammerd needs {needs}")
                code, took = running.terminate(9955)
                self.equal(code, 0, f"the exit code after SIGTERM ({running.words()})")
                self.check(took < given, f"ending took {took} s")
            self.equal(self.probe(container).returncode, 1, "the health check's exit code without hammerd")

    def health(self, container):
        said = self.probe(container)
        self.check(said.returncode == 0, f"{self.hammerd['healthCheck']['command']}: {said.stderr}")

    def probe(self, container):
        kind, program, *args = self.hammerd["healthCheck"]["command"]
        self.equal((kind, program), ("CMD", "/hammerd"), "the health check")
        return run(hammerd(), *args, env=container.env, timeout=PATIENCE_SECONDS)


def value(arn):
    """Of a parameter or a secret, as ECS reads it."""
    if ":secretsmanager:" in arn:
        return boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    name = arn.partition(":parameter")[2]
    return boto3.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]


def statements(role):
    """All that a role is allowed; its policies are all its own."""
    iam, name = boto3.client("iam"), role.rpartition("/")[2]
    assert not iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"], f"{name} has policies of others"
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        # moto gives out what a stack made as Python's text of it.
        yield from (ast.literal_eval(unquote(document)) if isinstance(document, str) else document)["Statement"]


def may(allowed, action, arn):
    return any(
        statement["Effect"] == "Allow" and action in listed(statement["Action"])
        and any(fnmatch.fnmatchcase(arn, pattern) for pattern in listed(statement["Resource"]))
        for statement in allowed
    )


def listed(value):
    return value if isinstance(value, list) else [value]
