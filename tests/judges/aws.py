"""An account of moto's, on this machine, with what has to be there before: a network, a cluster, a namespace, an address for
Prometheus. Programs find it by variables, as they find any endpoint."""

import logging
import os
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"
ACCOUNT = "123456789012"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/hammerd:0.1.0"
REPOSITORY = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/hammerd"


@contextmanager
def account():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_REGION=REGION,
        AWS_DEFAULT_REGION=REGION,
        AWS_EC2_METADATA_DISABLED="true",
    )
    try:
        yield Surroundings()
    finally:
        server.stop()


class Surroundings:
    def __init__(self):
        ec2 = boto3.client("ec2")
        self.vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.9.{at}.0/24")["Subnet"]["SubnetId"] for at in range(2)
        ]
        self.prometheus = ec2.create_security_group(VpcId=self.vpc, GroupName="prometheus", Description="p")["GroupId"]
        self.cluster = boto3.client("ecs").create_cluster(clusterName="tools")["cluster"]["clusterName"]
        discovery = boto3.client("servicediscovery")
        discovery.create_private_dns_namespace(Name="tools.internal", Vpc=self.vpc)
        self.namespace = discovery.list_namespaces()["Namespaces"][0]["Id"]
