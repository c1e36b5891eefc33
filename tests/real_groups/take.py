"""take.py BOOTSTRAP GROUP TOPIC COUNT: an aiokafka member of a group reads so many records, commits
what it has read, leaves, and prints the offsets."""
import asyncio
import sys

from aiokafka import AIOKafkaConsumer


async def main(bootstrap, group, topic, count):
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        for _ in range(int(count)):
            record = await asyncio.wait_for(consumer.getone(), 60)
            print(record.offset)
        await consumer.commit()
    finally:
        await consumer.stop()


asyncio.run(main(*sys.argv[1:]))
