"""Kindling on AWS Lambda: a repository in ECR, and one CloudFormation stack of template.yaml."""
