/* models/constants.h - what the models take from the layout: included by them and by
 * tests/unit/test_models.c, which holds each against the code. */
#ifndef SHMPS_MODELS_CONSTANTS_H
#define SHMPS_MODELS_CONSTANTS_H

#define MODEL_BLOCKS_SPARE 1 /* blocks = depth + pins + 1 */
#define MODEL_BELL_FIRST 1   /* the bell of a new ring */
#define MODEL_ARMED_FIRST 0  /* armed of a new group: for no bell */
#define MODEL_STARVED_NONE 0 /* nobody waits for room */
#define MODEL_SUCCESSOR_NONE 0
#define MODEL_PIN_NONE 0     /* a pin is the sample's sequence + 1 */
#define MODEL_SEQ_NONE 0     /* seq is the sample's sequence + 1 */
#define MODEL_BATCH_SMALL 1  /* samples reclaimed at a time, of a ring of less than 16 */

#endif
