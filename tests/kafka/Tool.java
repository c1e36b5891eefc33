import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Function;
import java.util.stream.Collectors;

import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Exit;

/**
 * Kafka's own Java clients behind stdin and stdout, so that a test does not start a JVM a question.
 *
 * A request is one line: number, command, arguments. An answer is one line: number, "ok" or "error",
 * and rows. Fields are parted by the ASCII unit separator, rows by the record separator. Requests
 * run side by side; each has its own answer. Null is "-", bytes are in hexadecimal after a "=".
 * It ends when stdin does. For scripts: with a bootstrap server as its argument it answers first what it has been asked.
 */
public class Tool {
    static final String FIELD = "\u001f", ROW = "\u001e";
    static final PrintStream OUT = System.out;
    static final long LIMIT_S = 60;
    static volatile String bootstrap = "";
    static volatile Admin admin;
    static final Map<Map<String, String>, KafkaProducer<byte[], byte[]>> producers = new ConcurrentHashMap<>();
    static final Map<String, Member> members = new ConcurrentHashMap<>();
    static final Map<String, Flow> flows = new ConcurrentHashMap<>();

    public static void main(String[] args) throws Exception {
        System.setOut(System.err);
        if (args.length > 0) bootstrap(args[0]);
        ExecutorService threads = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task, "request");
            thread.setDaemon(true);
            return thread;
        });
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            String[] field = line.split(FIELD, -1);
            List<String> rest = Arrays.asList(field).subList(2, field.length);
            threads.execute(() -> {
                String answer;
                try {
                    answer = "ok" + FIELD + String.join(ROW, run(field[1], new ArrayDeque<>(rest)));
                } catch (Throwable error) {
                    Throwable why = error;
                    while (why instanceof ExecutionException && why.getCause() != null) why = why.getCause();
                    answer = "error" + FIELD + why.getClass().getSimpleName() + ": " + why.getMessage();
                }
                synchronized (OUT) {
                    OUT.println(field[0] + FIELD + answer.replace("\r", "").replace("\n", ROW));
                    OUT.flush();
                }
            });
        }
        if (args.length == 0) return;
        threads.shutdown();
        threads.awaitTermination(LIMIT_S, TimeUnit.SECONDS);
    }

    static List<String> bootstrap(String servers) {
        bootstrap = servers;
        admin = Admin.create(client(Map.of()));
        return List.of();
    }

    static List<String> run(String command, Deque<String> a) throws Exception {
        switch (command) {
            case "bootstrap": return bootstrap(a.pop());
            case "java": return List.of(java(a.pop(), a.toArray(new String[0])));
            case "brokers": return brokers(Integer.parseInt(a.pop()));
            case "create": return create(a);
            case "delete": return done(admin.deleteTopics(List.of(a.pop())).all());
            case "topics": return List.copyOf(new TreeSet<>(get(admin.listTopics().names())));
            case "partitions": return partitions(a.pop());
            case "configure": return configure(a);
            case "produce": return produce(a);
            case "send": return send(a);
            case "flow": return flow(a);
            case "flow-end": return flows.remove(a.pop()).end();
            case "commit": return commit(a);
            case "group": return group(a.pop());
            case "members": return groupMembers(a.pop());
            case "join": return join(a);
            case "leave": return leave(a.pop());
            case "read": return read(a);
            case "trim": return trim(a);
            case "bounds": return bounds(a.pop());
            case "reassign": return reassign(a);
            case "elect": return elect(a);
            case "grow": return done(admin.createPartitions(Map.of(a.pop(), NewPartitions.increaseTo(Integer.parseInt(a.pop())))).all());
            default: throw new IllegalArgumentException("no such command: " + command);
        }
    }

    // Calls the main of one of Kafka's command line tools, one at a time, and returns what it prints.
    static synchronized String java(String main, String[] args) throws Exception {
        class Exited extends RuntimeException { }
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream stream = new PrintStream(printed, true, StandardCharsets.UTF_8), before = System.out;
        int[] status = {0};
        Exit.Procedure exit = (code, message) -> {
            if (message != null) stream.println(message);
            status[0] = code;
            throw new Exited();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        System.setOut(stream);
        try {
            scala.Console.withOut(stream, () -> {
                try {
                    return Class.forName(main).getMethod("main", String[].class).invoke(null, (Object) args);
                } catch (InvocationTargetException thrown) {
                    if (!(thrown.getCause() instanceof Exited)) thrown.getCause().printStackTrace(stream);
                    if (!(thrown.getCause() instanceof Exited)) status[0] = 1;
                    return null;
                } catch (ReflectiveOperationException error) {
                    throw new IllegalArgumentException(error);
                }
            });
        } finally {
            System.setOut(before);
        }
        String text = printed.toString(StandardCharsets.UTF_8);
        if (status[0] != 0) throw new IllegalStateException(main + " exits with " + status[0] + ": " + text);
        return text;
    }

    // Returns once `count` brokers are in the metadata: node, host:port.
    static List<String> brokers(int count) throws Exception {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_S);
        while (true) {
            Collection<Node> nodes = get(admin.describeCluster().nodes());
            if (nodes.size() >= count) return rows(nodes, n -> n.id() + FIELD + n.host() + ":" + n.port());
            if (System.nanoTime() > until) throw new TimeoutException("only these brokers answer: " + nodes);
            Thread.sleep(20);
        }
    }

    // create TOPIC ASSIGNMENT CONFIGS; the assignment is "3" (partitions) or "1,2;2,1" (replicas of each).
    static List<String> create(Deque<String> a) throws Exception {
        String name = a.pop(), assignment = a.pop();
        NewTopic topic;
        if (assignment.matches("\\d+")) {
            topic = new NewTopic(name, Optional.of(Integer.valueOf(assignment)), Optional.empty());
        } else {
            Map<Integer, List<Integer>> replicas = new HashMap<>();
            for (String one : assignment.split(";")) replicas.put(replicas.size(), numbers(one));
            topic = new NewTopic(name, replicas);
        }
        get(admin.createTopics(List.of(topic.configs(configs(a.pop())))).all());
        // The answer says that the controller knows it; wait until the brokers do, with a leader each.
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_S);
        while (true) {
            try {
                TopicDescription seen = get(admin.describeTopics(List.of(name)).allTopicNames()).get(name);
                if (seen.partitions().stream().allMatch(p -> p.leader() != null)) {
                    return List.of(seen.topicId().toString());
                }
            } catch (ExecutionException notYet) {
                if (System.nanoTime() > until) throw notYet;
            }
            Thread.sleep(10);
        }
    }

    // partition, leader ("-" for none), replicas, in-sync replicas
    static List<String> partitions(String topic) throws Exception {
        TopicDescription seen = get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        return rows(seen.partitions(), p -> p.partition() + FIELD
            + (p.leader() == null || p.leader().isEmpty() ? "-" : p.leader().id()) + FIELD + ids(p.replicas()) + FIELD + ids(p.isr()));
    }

    // configure TYPE (topic, broker, or client for quotas) NAME CONFIGS; an empty value takes the key away.
    static List<String> configure(Deque<String> a) throws Exception {
        String type = a.pop(), name = a.pop();
        Map<String, String> changes = configs(a.pop());
        if (type.equals("client")) {
            var entity = new org.apache.kafka.common.quota.ClientQuotaEntity(Map.of("client-id", name));
            var ops = changes.entrySet().stream().map(e -> new org.apache.kafka.common.quota.ClientQuotaAlteration.Op(
                e.getKey(), e.getValue().isEmpty() ? null : Double.valueOf(e.getValue()))).collect(Collectors.toList());
            return done(admin.alterClientQuotas(
                List.of(new org.apache.kafka.common.quota.ClientQuotaAlteration(entity, ops))).all());
        }
        ConfigResource what = new ConfigResource(ConfigResource.Type.valueOf(type.toUpperCase()), name);
        List<AlterConfigOp> ops = changes.entrySet().stream().map(e -> new AlterConfigOp(
            new ConfigEntry(e.getKey(), e.getValue()),
            e.getValue().isEmpty() ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET)).collect(Collectors.toList());
        return done(admin.incrementalAlterConfigs(Map.of(what, ops)).all());
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, String> extra) {
        return producers.computeIfAbsent(extra, given -> {
            Properties all = client(Map.of());
            all.putAll(Map.of("acks", "all", "enable.idempotence", "false", "max.request.size", "67108864",
                "buffer.memory", "134217728", "max.block.ms", "30000"));
            all.putAll(given);
            var producer = new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
            if (given.containsKey("transactional.id")) producer.initTransactions();
            return producer;
        });
    }

    // produce TOPIC PARTITION COUNT SIZE VALUES FIRST KEYS CONFIGS END: numbered values "000000000042 xxxx",
    // padded to SIZE; VALUES: alphabet, or mixed with random digits. KEYS: "-" for null, "seq", or how many different ones. PARTITION: a number, or "-" for Kafka's
    // own choice. END: plain, commit, abort. Rows: partition, first offset, last offset, records.
    static List<String> produce(Deque<String> a) throws Exception {
        String topic = a.pop();
        Integer partition = number(a.pop());
        long count = Long.parseLong(a.pop());
        int size = Integer.parseInt(a.pop());
        boolean mixed = a.pop().equals("mixed");
        long first = Long.parseLong(a.pop());
        String keys = a.pop();
        Map<String, String> extra = configs(a.pop());
        String end = a.pop();
        byte[] pattern = new byte[Math.max(size, 12)];
        for (int i = 12; i < pattern.length; i++) pattern[i] = (byte) (i == 12 ? ' ' : 'a' + i % 26);
        return transaction(extra, end, (producer, sent) -> {
            for (long n = first; n < first + count; n++) {
                byte[] value = pattern.clone();
                if (mixed) {
                    var random = new SplittableRandom(n);
                    for (int i = 13; i < size; i += 2) value[i] = (byte) ('0' + random.nextInt(10));
                }
                System.arraycopy(String.format("%012d", n).getBytes(), 0, value, 0, 12);
                byte[] key = keys.equals("-") ? null
                    : ("k" + (keys.equals("seq") ? n : n % Long.parseLong(keys))).getBytes();
                sent.accept(producer.send(new ProducerRecord<>(topic, partition, key, value)));
            }
        });
    }

    // send CONFIGS END, then for each record: TOPIC PARTITION KEY VALUE TIMESTAMP. All are handed over
    // before the first is sent: one batch a partition, as far as batch.size (16 MiB here) allows.
    static List<String> send(Deque<String> a) throws Exception {
        Map<String, String> extra = new HashMap<>(Map.of("linger.ms", "60000", "batch.size", "16777216"));
        extra.putAll(configs(a.pop()));
        String end = a.pop();
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        while (!a.isEmpty()) {
            String topic = a.pop();
            Integer partition = number(a.pop());
            byte[] key = bytes(a.pop()), value = bytes(a.pop());
            String time = a.pop();
            records.add(new ProducerRecord<>(topic, partition, time.equals("-") ? null : Long.valueOf(time), key, value));
        }
        return transaction(extra, end, (producer, sent) -> {
            for (var record : records) sent.accept(producer.send(record));
        });
    }

    interface Sending {
        void run(KafkaProducer<byte[], byte[]> producer, java.util.function.Consumer<Future<RecordMetadata>> sent);
    }

    static List<String> transaction(Map<String, String> extra, String end, Sending sending) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer(extra);
        Map<Integer, long[]> offsets = new TreeMap<>();
        // One caller of a producer at a time: a flush would end the batches of another.
        synchronized (producer) {
            if (!end.equals("plain")) producer.beginTransaction();
            Deque<Future<RecordMetadata>> waiting = new ArrayDeque<>();
            sending.run(producer, sent -> {
                waiting.add(sent);
                while (waiting.size() > 100_000) note(offsets, waiting.pop());
            });
            producer.flush();
            while (!waiting.isEmpty()) note(offsets, waiting.pop());
            if (end.equals("commit")) producer.commitTransaction();
            if (end.equals("abort")) producer.abortTransaction();
        }
        return rows(offsets.entrySet(), e -> e.getKey() + FIELD + e.getValue()[0] + FIELD + e.getValue()[1] + FIELD + e.getValue()[2]);
    }

    static void note(Map<Integer, long[]> offsets, Future<RecordMetadata> sent) {
        try {
            RecordMetadata at = sent.get(LIMIT_S, TimeUnit.SECONDS);
            long[] range = offsets.computeIfAbsent(at.partition(), p -> new long[] {at.offset(), at.offset(), 0});
            range[1] = at.offset();
            range[2]++;
        } catch (ExecutionException error) {
            throw new IllegalStateException(error.getCause().toString(), error);
        } catch (InterruptedException | TimeoutException error) {
            throw new IllegalStateException(error.toString(), error);
        }
    }

    // A stream of numbered records to all partitions of some topics by turns, which does not wait for its
    // answers but notes them. Each partition has its own numbers; a value is "000000000042 NAME xxxx".
    static class Flow extends Thread {
        final String name;
        final List<TopicPartition> partitions = new ArrayList<>();
        final long rate;
        final int size;
        final KafkaProducer<byte[], byte[]> producer;
        final Map<TopicPartition, NavigableMap<Long, Long>> acked = new ConcurrentHashMap<>();
        final AtomicLong failed = new AtomicLong();
        volatile boolean ending;
        long sent;

        Flow(String name, String topics, int count, long rate, int size, Map<String, String> extra) {
            super("flow " + name);
            setDaemon(true);
            this.name = name;
            this.rate = rate;
            this.size = size;
            for (String topic : topics.split(",")) for (int p = 0; p < count; p++) partitions.add(new TopicPartition(topic, p));
            Properties all = client(Map.of("acks", "all", "enable.idempotence", "true", "linger.ms", "20", "max.block.ms", "30000"));
            all.putAll(extra);
            producer = new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
        }

        public void run() {
            long began = System.nanoTime();
            for (; !ending; sent++) {
                LockSupport.parkNanos(began + sent * 1_000_000_000L / rate - System.nanoTime());
                TopicPartition to = partitions.get((int) (sent % partitions.size()));
                long number = sent / partitions.size();
                StringBuilder value = new StringBuilder(String.format("%012d %s ", number, name));
                for (int left = (int) (number * 7919 % size); left > 0; left--) value.append((char) ('a' + left % 26));
                producer.send(new ProducerRecord<>(to.topic(), to.partition(), null, value.toString().getBytes()), (at, error) -> {
                    if (error != null) failed.incrementAndGet();
                    else acked.computeIfAbsent(to, p -> new ConcurrentSkipListMap<>()).put(at.offset(), number);
                });
            }
        }

        // First row: how many were sent, and how many of them were refused. Then what was acknowledged:
        // topic, partition, first offset, first number, how many follow each other in both.
        List<String> end() throws Exception {
            ending = true;
            join();
            producer.close();
            List<String> rows = new ArrayList<>(List.of(sent + FIELD + failed.get()));
            acked.forEach((to, numbers) -> {
                long offset = -1, number = -1, count = 0;
                for (var one : numbers.entrySet()) {
                    if (count > 0 && one.getKey() == offset + count && one.getValue() == number + count) { count++; continue; }
                    if (count > 0) rows.add(to.topic() + FIELD + to.partition() + FIELD + offset + FIELD + number + FIELD + count);
                    offset = one.getKey();
                    number = one.getValue();
                    count = 1;
                }
                rows.add(to.topic() + FIELD + to.partition() + FIELD + offset + FIELD + number + FIELD + count);
            });
            return rows;
        }
    }

    // flow NAME TOPICS PARTITIONS RATE SIZE CONFIGS: a Flow of so many records a second until "flow-end NAME"
    static List<String> flow(Deque<String> a) {
        String name = a.pop();
        Flow flow = new Flow(name, a.pop(), Integer.parseInt(a.pop()), Long.parseLong(a.pop()), Integer.parseInt(a.pop()), configs(a.pop()));
        if (flows.putIfAbsent(name, flow) != null) throw new IllegalStateException(name + " flows already");
        flow.start();
        return List.of();
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, String> extra) {
        Properties all = client(Map.of("enable.auto.commit", "false", "auto.offset.reset", "earliest"));
        all.putAll(extra);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    // commit GROUP TOPIC PARTITION OFFSET …: as a consumer that is no member (assign, commitSync)
    static List<String> commit(Deque<String> a) throws Exception {
        try (var consumer = consumer(Map.of("group.id", a.pop()))) {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            while (!a.isEmpty()) {
                offsets.put(new TopicPartition(a.pop(), Integer.parseInt(a.pop())), new OffsetAndMetadata(Long.parseLong(a.pop())));
            }
            consumer.assign(offsets.keySet());
            consumer.commitSync(offsets, Duration.ofSeconds(LIMIT_S));
        }
        return List.of();
    }

    // topic, partition, committed, log end, lag: the numbers of kafka-consumer-groups --describe
    static List<String> group(String group) throws Exception {
        var committed = new TreeMap<TopicPartition, OffsetAndMetadata>(
            Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition));
        committed.putAll(get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()));
        var ends = get(admin.listOffsets(committed.keySet().stream()
            .collect(Collectors.toMap(p -> p, p -> OffsetSpec.latest()))).all());
        return rows(committed.entrySet(), e -> {
            long at = e.getValue().offset(), end = ends.get(e.getKey()).offset();
            return e.getKey().topic() + FIELD + e.getKey().partition() + FIELD + at + FIELD + end + FIELD + (end - at);
        });
    }

    // first row: the group's state; then one a member: member id, client id, assigned partitions
    static List<String> groupMembers(String group) throws Exception {
        var seen = get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
        List<String> rows = new ArrayList<>(List.of(seen.state().toString()));
        rows.addAll(rows(seen.members(), m -> m.consumerId() + FIELD + m.clientId() + FIELD
            + m.assignment().topicPartitions().stream().map(TopicPartition::toString).sorted().collect(Collectors.joining(","))));
        return rows;
    }

    static class Member extends Thread {
        final KafkaConsumer<byte[], byte[]> consumer;
        final CountDownLatch assigned = new CountDownLatch(1);
        volatile boolean leaving;
        volatile String id;
        volatile Exception failed;

        Member(String topic, Map<String, String> extra) {
            super("member");
            setDaemon(true);
            consumer = consumer(extra);
            consumer.subscribe(List.of(topic.split(",")), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> gone) { }
                public void onPartitionsAssigned(Collection<TopicPartition> mine) {
                    id = consumer.groupMetadata().memberId();
                    assigned.countDown();
                }
            });
        }

        public void run() {
            try (consumer) {
                while (!leaving) {
                    if (!consumer.poll(Duration.ofMillis(50)).isEmpty()) consumer.commitSync();
                }
            } catch (Exception error) {
                failed = error;
                assigned.countDown();
            }
        }
    }

    // join NAME GROUP TOPICS CONFIGS: a live member that polls and commits until "leave NAME"
    static List<String> join(Deque<String> a) throws Exception {
        String name = a.pop(), group = a.pop(), topics = a.pop();
        Map<String, String> extra = configs(a.pop());
        extra.put("group.id", group);
        Member member = new Member(topics, extra);
        if (members.putIfAbsent(name, member) != null) throw new IllegalStateException(name + " has joined already");
        member.start();
        if (!member.assigned.await(LIMIT_S, TimeUnit.SECONDS)) throw new TimeoutException("got no assignment");
        if (member.failed != null) throw member.failed;
        return List.of(member.id);
    }

    static List<String> leave(String name) throws Exception {
        Member member = members.remove(name);
        if (member == null) throw new IllegalArgumentException(name + " has not joined");
        member.leaving = true;
        member.join(LIMIT_S * 1000);
        if (member.failed != null) throw member.failed;
        return List.of();
    }

    // read TOPIC ISOLATION: every record up to the end: partition, offset, timestamp, key, value
    static List<String> read(Deque<String> a) throws Exception {
        String topic = a.pop();
        List<String> rows = new ArrayList<>();
        try (var consumer = consumer(Map.of("isolation.level", a.pop(), "max.poll.records", "10000"))) {
            var all = consumer.partitionsFor(topic).stream()
                .map(p -> new TopicPartition(topic, p.partition())).collect(Collectors.toList());
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_S);
            while (all.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                if (System.nanoTime() > until) throw new TimeoutException("read " + rows.size() + " records, then none");
                for (var r : consumer.poll(Duration.ofMillis(100))) {
                    rows.add(r.partition() + FIELD + r.offset() + FIELD + r.timestamp() + FIELD + text(r.key()) + FIELD + text(r.value()));
                }
            }
        }
        return rows;
    }

    // trim TOPIC PARTITION OFFSET: deletes the records below the offset
    static List<String> trim(Deque<String> a) throws Exception {
        var partition = new TopicPartition(a.pop(), Integer.parseInt(a.pop()));
        return done(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(Long.parseLong(a.pop())))).all());
    }

    // partition, log start, log end
    static List<String> bounds(String topic) throws Exception {
        var all = get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().stream()
            .map(p -> new TopicPartition(topic, p.partition())).collect(Collectors.toList());
        var starts = get(admin.listOffsets(all.stream().collect(Collectors.toMap(p -> p, p -> OffsetSpec.earliest()))).all());
        var ends = get(admin.listOffsets(all.stream().collect(Collectors.toMap(p -> p, p -> OffsetSpec.latest()))).all());
        return rows(all, p -> p.partition() + FIELD + starts.get(p).offset() + FIELD + ends.get(p).offset());
    }

    // reassign TOPIC PARTITION REPLICAS: returns once the controller has done it; the brokers learn it a moment later
    static List<String> reassign(Deque<String> a) throws Exception {
        var partition = new TopicPartition(a.pop(), Integer.parseInt(a.pop()));
        get(admin.alterPartitionReassignments(
            Map.of(partition, Optional.of(new NewPartitionReassignment(numbers(a.pop()))))).all());
        while (!get(admin.listPartitionReassignments(Set.of(partition)).reassignments()).isEmpty()) Thread.sleep(20);
        return List.of();
    }

    // elect TOPIC PARTITION: the first of its replicas becomes the leader
    static List<String> elect(Deque<String> a) throws Exception {
        var partition = new TopicPartition(a.pop(), Integer.parseInt(a.pop()));
        var answers = get(admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions());
        Optional<Throwable> error = answers.getOrDefault(partition, Optional.empty());
        if (error.isPresent() && !(error.get() instanceof org.apache.kafka.common.errors.ElectionNotNeededException)) {
            throw new ExecutionException(error.get());
        }
        return List.of();
    }

    static Properties client(Map<String, String> extra) {
        Properties all = new Properties();
        all.put("bootstrap.servers", bootstrap);
        all.put("client.id", "tool");
        all.putAll(extra);
        return all;
    }

    static Map<String, String> configs(String text) {
        Map<String, String> all = new HashMap<>();
        for (String one : text.split(";")) {
            int at = one.indexOf('=');
            if (at > 0) all.put(one.substring(0, at), one.substring(at + 1));
        }
        return all;
    }

    static <T> T get(KafkaFuture<T> future) throws Exception { return future.get(LIMIT_S, TimeUnit.SECONDS); }

    static List<String> done(KafkaFuture<?> future) throws Exception { get(future); return List.of(); }

    static <T> List<String> rows(Collection<T> all, Function<T, String> row) {
        return all.stream().map(row).collect(Collectors.toList());
    }

    static Integer number(String text) { return text.equals("-") ? null : Integer.valueOf(text); }

    static List<Integer> numbers(String text) {
        return Arrays.stream(text.split(",")).map(Integer::valueOf).collect(Collectors.toList());
    }

    static String ids(Collection<Node> nodes) {
        return nodes.stream().map(Node::idString).collect(Collectors.joining(","));
    }

    static byte[] bytes(String text) { return text.equals("-") ? null : HexFormat.of().parseHex(text.substring(1)); }

    static String text(byte[] bytes) { return bytes == null ? "-" : "=" + HexFormat.of().formatHex(bytes); }
}
