"""The notifier: tells people and programs how a job ended, by mail and webhook (docs/notifications.md).

`jobs` turns an ended job into deliveries, `sending` sends those that are due; what they decide stands in the pure
modules `triggers`, `letter`, `payload`, `signing`, `schedule`, `address_policy` and `outcome`.
"""
