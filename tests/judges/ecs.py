"""Judges deploy/ecs: the Terraform modules and the CloudFormation template, by their own tools, and by what they make in an
account of moto's: the registered task definition, its roles, its configuration."""

import aws
import cloudformation
import terraform
from daemon import private_network
from report import Report

if __name__ == "__main__":
    report = Report("tests/deploy/ecs")
    with aws.account() as surroundings:
        cloudformation.judge(report, surroundings)
        terraform.judge(report, surroundings)
    if not private_network():
        report.skip("starting hammerd as a task would", "needs root, for a private network")
    report.finish()
