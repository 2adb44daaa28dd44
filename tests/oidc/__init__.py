"""An OpenID provider that is not ours: panva's oidc-provider (npm, MIT, certified by the OpenID Foundation)."""
