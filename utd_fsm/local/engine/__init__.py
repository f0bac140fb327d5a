"""The local engine: a real server process for development and tests, speaking the hosted engine's wire contract.

=================  ====================================================================
`settings`         what it is started with
`store`            its memory, SQLite
`calls`            the rules of a call, on the declared machine
`service`          a verb is one transaction, told only after its commit
`idempotency`      requests in order, each applied once
`routes_…`         HTTP: calls, users, media
`socket`           users hear of their calls
`webhooks_out`     the application's backend hears of them
`deadlines`        ring timeout and longest call
`livekit_books`    who is in the media rooms, and who should be
=================  ====================================================================

Importing this package imports none of them: FastAPI and LiveKit's server API load with `app`.
"""
