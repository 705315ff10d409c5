"""What all tenants share: who they are."""
