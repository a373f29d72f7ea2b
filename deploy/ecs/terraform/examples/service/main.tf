# terraform init && terraform apply, after filling in terraform.tfvars.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

variable "image" {
  type = string
}

# Of the repository that the image is in; leave it out where that is not ECR.
variable "ecr_repository_arn" {
  type    = string
  default = null
}

variable "cluster" {
  type = string
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  type = list(string)
}

variable "prometheus_security_group" {
  type = string
}

variable "discovery" {
  type    = object({ namespace_id = string, namespace_name = string })
  default = null
}

module "hammerd" {
  source = "../../service"

  image                  = var.image
  ecr_repository_arn     = var.ecr_repository_arn
  cluster                = var.cluster
  vpc_id                 = var.vpc_id
  subnet_ids             = var.subnet_ids
  scrape_security_groups = { prometheus = var.prometheus_security_group }
  discovery              = var.discovery
  config                 = file("${path.module}/hammerd.toml")
}

output "hammerd" {
  value = module.hammerd
}
