/* tests/unit/test_models.c - models/constants.h: what the models take from the layout is so. */
#include "support.h"

#include "layout/directory.h"
#include "layout/readers.h"
#include "layout/ring.h"
#include "models/constants.h"
#include "ring/publisher.h"
#include "ring/reader.h"

/* A ring with blocks, as pubsubd makes it, its publisher and its one reader. */
static struct {
    _Alignas(4096) char segment[1 << 20];
    struct ring_geometry g;
    struct readers_segment readers;
    struct ring_publisher publisher;
    struct ring_reader reader;
    atomic_u32 generation;
    _Alignas(8) char memory[4096];
} bus;

static struct ring_header *ring(void) {
    return (struct ring_header *)bus.segment;
}

static int make(void **state) {
    (void)state;
    uint64_t bytes;
    memset(&bus, 0, sizeof bus);
    assert_int_equal(ring_geometry_make(&bus.g, &bytes, 4, 4096, 1), 0);
    assert_true(bytes <= sizeof bus.segment);
    bus.g.mode = RING_BARE;
    ring_format(ring(), &bus.g);
    readers_format(&bus.readers);
    assert_true(ring_publisher_memory(&bus.g) <= sizeof bus.memory);
    ring_publisher_init(&bus.publisher, ring(), &bus.g, &bus.generation, bus.memory);
    ring_reader_init(&bus.reader, ring(), &bus.g, &bus.readers.entries[0], POLICY_LOSSY, 1, 0,
                     false);
    ring_reader_begin(&bus.reader, bus.g.start);
    return 0;
}

static void blocks_are_depth_and_pins_and_a_spare_one(void **state) {
    (void)state;
    for (uint32_t pins = 0; pins < 100; pins += 7) {
        struct ring_geometry g;
        uint64_t bytes;
        assert_int_equal(ring_geometry_make(&g, &bytes, 16, 4096, pins), 0);
        assert_int_equal(g.blocks, 16 + pins + MODEL_BLOCKS_SPARE);
    }
}

static void words_begin_as_in_the_models(void **state) {
    (void)state;
    assert_int_equal(atomic_load_relaxed(&ring()->bell), MODEL_BELL_FIRST);
    assert_int_equal(bus.publisher.bell, MODEL_BELL_FIRST);
    assert_int_equal(atomic_load_relaxed(&ring()->starved), MODEL_STARVED_NONE);
    assert_int_equal(atomic_load_relaxed(&ring()->successor), MODEL_SUCCESSOR_NONE);
    assert_int_equal(atomic_load_relaxed(&ring()->evicted[0]), 0);
    assert_int_equal(atomic_load_relaxed(&bus.readers.armed), MODEL_ARMED_FIRST);
    assert_int_equal(atomic_load_relaxed(&bus.readers.space), 0);
    assert_true(MODEL_ARMED_FIRST < MODEL_BELL_FIRST);
    struct slot *slot = ring_slot(bus.segment + RING_SLOTS_OFFSET, &bus.g, 0);
    assert_int_equal(atomic_load_relaxed(&slot->seq), MODEL_SEQ_NONE);
}

static void seq_and_pin_are_the_sequence_and_one(void **state) {
    (void)state;
    static const char message[4096];
    struct slot *slot = ring_slot(bus.segment + RING_SLOTS_OFFSET, &bus.g, 0);
    atomic_u64 *pin = reader_pin(&bus.readers.entries[0], 0);
    struct ring_sample sample;
    char buffer[64];
    ring_append(&bus.publisher, message, sizeof message, 0, 0);
    assert_int_equal(atomic_load_relaxed(&slot->seq), 0 + 1);
    assert_int_equal(atomic_load_relaxed(pin), MODEL_PIN_NONE);
    assert_int_equal(ring_take(&bus.reader, buffer, &sample), RING_TAKEN);
    assert_int_equal(atomic_load_relaxed(pin), 0 + 1);
    ring_release(&bus.reader, sample.pin);
    assert_int_equal(atomic_load_relaxed(pin), MODEL_PIN_NONE);
}

static void a_batch_of_a_small_ring_is_one(void **state) {
    (void)state;
    assert_int_equal(ring_batch(2), MODEL_BATCH_SMALL);
    assert_int_equal(ring_batch(4), MODEL_BATCH_SMALL);
    assert_int_equal(bus.publisher.batch, MODEL_BATCH_SMALL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(blocks_are_depth_and_pins_and_a_spare_one, make),
        cmocka_unit_test_setup(words_begin_as_in_the_models, make),
        cmocka_unit_test_setup(seq_and_pin_are_the_sequence_and_one, make),
        cmocka_unit_test_setup(a_batch_of_a_small_ring_is_one, make),
    };
    return cmocka_run_group_tests_name("constants of the models", tests, NULL, NULL);
}
