#!/bin/sh
# Submit a build manifest from a shell, with amqp-publish of Debian's package amqp-tools.
#
#     leveret up                     # in another terminal; it prints the address and the owner
#     export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
#     ./publish.sh hello.yml
#
# amqp-publish waits for no answer: job or rejection come as events (subscribe_pika.py prints them). A dot in the owner's
# name has to be written as %2E here. On a machine shared with others give --server, --vhost and --authfile in place of
# --url, for they may see a command's arguments.
exec amqp-publish --url "$LEVERET_AMQP_URL" --exchange leveret.submit --routing-key "$LEVERET_OWNER.examples" \
  --content-type application/yaml --persistent --header "note: from publish.sh" <"$1"
