"""The local engine: a real server process for development and tests, speaking the hosted engine's wire contract.

=================  ====================================================================
`settings`         what it is started with
`store`            its memory, SQLite
`calls`            the rules of a call, on the declared machine
`room_state`       a stream or an audio room as it is kept and shown
`rooms`            the rules of stage, seats and moderation
`service`          a verb is one transaction, told only after its commit
`idempotency`      requests in order, each applied once
`routes_…`         HTTP: calls, users, stage, seats, moderation, media
`socket`           users hear of their calls
`webhooks_out`     the application's backend hears of them
`deadlines`        ring timeout and longest call
`livekit_books`    who is in the calls' media rooms, and who should be
`room_books`       the same for streams and audio rooms, and what LiveKit is to be told of them
=================  ====================================================================

Importing this package imports none of them: FastAPI and LiveKit's server API load with `app`.
"""
