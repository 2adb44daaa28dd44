"""Who people and services are: tokens by OpenID Connect, sessions of browsers, and an issuer for one machine."""
