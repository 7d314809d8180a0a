// Submit a build manifest with Node's amqplib, and wait for the answer: the job's id, or every fault with its line.
//
//     leveret up                     # in another terminal; it prints the address and the owner
//     export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
//     npm install
//     node publish.js ../hello.yml
//
// Prints the job's id. Exit status: 0 accepted, 1 rejected, 2 no answer.
'use strict';

const { readFileSync } = require('node:fs');
const { randomUUID } = require('node:crypto');
const amqp = require('amqplib');

const ANSWER_LIMIT = 30_000; // milliseconds
const REPLY_TO = 'amq.rabbitmq.reply-to'; // RabbitMQ's direct reply-to: answers without a queue

// One word of a routing key: percent-escaped, so that no dot or wildcard in it means anything.
function word(text) {
  return encodeURIComponent(text)
    .replace(/[.'()*]/g, (sign) => '%' + sign.charCodeAt(0).toString(16).toUpperCase())
    .replace(/%(2F|40|3A|2B|2C|3D)/g, decodeURIComponent);
}

async function submit(manifest, owner, project) {
  const connection = await amqp.connect(process.env.LEVERET_AMQP_URL);
  try {
    const channel = await connection.createConfirmChannel();
    return await new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(why));
      const timer = setTimeout(fail, ANSWER_LIMIT, `no answer within ${ANSWER_LIMIT / 1000} s`);
      const answered = (message) => {
        clearTimeout(timer);
        resolve(JSON.parse(message.content));
      };
      channel.on('error', reject);
      channel.on('return', () => fail('nobody takes manifests: was Leveret set up at this broker?'));
      channel.consume(REPLY_TO, answered, { noAck: true }).catch(reject);
      const properties = {
        contentType: 'application/yaml', messageId: randomUUID(), replyTo: REPLY_TO,
        persistent: true, mandatory: true, headers: { note: 'from publish.js' },
      };
      channel.publish('leveret.submit', `${word(owner)}.${word(project)}`, manifest, properties, (refused) => {
        if (refused) reject(refused);
      });
    });
  } finally {
    await connection.close();
  }
}

async function main(path) {
  const answer = await submit(readFileSync(path), process.env.LEVERET_OWNER, 'examples');
  for (const found of answer.diagnostics ?? answer.warnings ?? []) {
    console.error(`${path}:${found.line}:${found.column}: ${found.severity}: ${found.path}: ${found.message}`);
  }
  if (answer.job === undefined) {
    console.error(`rejected: ${answer.message}`);
    return 1;
  }
  console.log(answer.job);
  return 0;
}

main(process.argv[2]).then(
  (status) => process.exit(status),
  (error) => { console.error(String(error)); process.exit(2); },
);
