// An OpenID provider as a ministry or a hospital runs one: its own names for what a token says, JWT access tokens for
// the resource that a client names (RFC 8707, RFC 9068), RS256. argv: port, folder of node_modules, clients as JSON.
// `rotate` on standard input signs with a new key and withdraws the old one; the end of standard input ends it.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';

const [port, modules, clients] = process.argv.slice(2);
const found = createRequire(`${modules}/package.json`).resolve('oidc-provider');
const { Provider } = await import(pathToFileURL(found));
const base = `http://127.0.0.1:${port}`;

const key = () => ({
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: randomUUID(), use: 'sig', alg: 'RS256',
});

const staff = {
  'nadia': { groups: ['doctor'], hospitals: ['CAI-01'], staff_no: 'D-17', name: 'Nadia' },
  'omar': { groups: ['technician', 'clerk'], hospitals: ['CAI-01', 'ALX-02'], staff_no: 'T-4', name: 'Omar' },
  'visitor': { name: 'Visitor' },
};
const services = { 'gw-9': { groups: ['gateway'], hospitals: ['ALX-02'] } };

const configuration = (jwks) => ({
  clients: JSON.parse(clients),
  jwks,
  cookies: { keys: ['a key of these tests'] },
  claims: { openid: ['sub'], profile: ['name'] },
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub, ...staff[sub] }) }),
  extraTokenClaims: (ctx, token) => staff[token.accountId] ?? services[token.clientId],
  issueRefreshToken: () => true,
  // Whoever logs in here has agreed: the ministry's own pages ask nobody for leave
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId });
    grant.addOIDCScope('openid profile offline_access');
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: '', audience: resource, accessTokenTTL: 600, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

const serving = () => new Provider(base, configuration({ keys: [key()] })).callback();
let answer = serving();
createServer((request, response) => answer(request, response)).listen(Number(port), '127.0.0.1', () => console.log('ready'));
const lines = createInterface({ input: process.stdin });
lines.on('line', () => { answer = serving(); console.log('rotated'); });
lines.on('close', () => process.exit(0));
