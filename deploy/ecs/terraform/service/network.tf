# In: the scrape port, from the groups that you name. Out: targets, name servers, the registry, CloudWatch and SSM.

resource "aws_security_group" "hammerd" {
  name_prefix = "${var.name}-"
  description = "hammerd: scraped by those named, sends to its targets"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = var.name })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "scrape" {
  for_each = var.scrape_security_groups

  security_group_id            = aws_security_group.hammerd.id
  description                  = "scrapes from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 9955
  to_port                      = 9955
}

resource "aws_vpc_security_group_egress_rule" "out" {
  for_each = toset(var.egress_cidr_blocks)

  security_group_id = aws_security_group.hammerd.id
  description       = "requests, names, image, log"
  cidr_ipv4         = each.value
  ip_protocol       = "-1"
}
