// Print the status events of an owner's builds as they come, with Node's amqplib.
//
//     leveret up                     # in another terminal; it prints the address and the owner
//     export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
//     npm install
//     node subscribe.js [--until-end]
//
// Events are numbered by (job, source): repeats are dropped, a gap is told.
'use strict';

const amqp = require('amqplib');

const KINDS = ['job', 'task', 'log', 'delivery', 'submission'];
const VISIBILITIES = ['public', 'unlisted', 'private'];
const ENDS = ['success', 'failed', 'timeout', 'cancelled'];

// One word of a routing key: percent-escaped, so that no dot or wildcard in it means anything.
function word(text) {
  return encodeURIComponent(text)
    .replace(/[.'()*]/g, (sign) => '%' + sign.charCodeAt(0).toString(16).toUpperCase())
    .replace(/%(2F|40|3A|2B|2C|3D)/g, decodeURIComponent);
}

const last = new Map();

function isNew(event) {
  if (event.seq === undefined) return true; // a rejected submission has no job, and no number
  const key = `${event.facts.job} ${event.source}`;
  const seen = last.get(key);
  if (seen !== undefined && event.seq > seen + 1) {
    console.error(`job ${event.facts.job}: ${event.source}'s events ${seen + 1} to ${event.seq - 1} are missing`);
  }
  last.set(key, Math.max(seen ?? 0, event.seq));
  return seen === undefined || event.seq > seen;
}

async function main(untilEnd) {
  const connection = await amqp.connect(process.env.LEVERET_AMQP_URL);
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true, durable: false });
  for (const kind of KINDS) {
    for (const visibility of VISIBILITIES) {
      await channel.bindQueue(queue, 'leveret.events', `${kind}.${visibility}.${word(process.env.LEVERET_OWNER)}.#`);
    }
  }
  const show = async (message) => {
    if (message === null) throw new Error('the broker ended the subscription');
    const event = JSON.parse(message.content);
    if (isNew(event)) console.log(`${message.fields.routingKey}\t${event.seq ?? '-'}\t${event.reason ?? ''}`);
    if (untilEnd && message.properties.type === 'job.event.v1' && ENDS.includes(event.status)) await connection.close();
  };
  await channel.consume(queue, show, { noAck: true });
  console.error('listening');
}

main(process.argv.includes('--until-end'));
