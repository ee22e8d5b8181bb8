/* order.h - what is certainly done before what, over the streams of all devices.
 *
 * Where stages meet on GPUs a device's list is put into two streams, and what orders actions is
 * the order of each stream, the waits of the lists, and the messages themselves. With S the
 * send and R the receive of a message, a before b meaning that a is done when b begins:
 *
 *     nccl   S and R begin together or in any order; R is done when S has delivered, so all
 *            that is before S is before what R writes, and S and R are before all that waits
 *            for R. Nothing that the receiver did orders the sender: a send may be buffered.
 *     peer   R posts a buffer on the receiver's stream; S copies, after R where `after_post`
 *            says so; who waits for R waits for S.
 *
 * At the end of a list every host synchronises the streams of its own device, and goes on
 * without the others: a peer's copy may still be on its way. (Commands, a number of steps or an
 * evaluation, do end together.)
 *
 * Clipping is a meeting of the host's threads, each after its compute stream: all that any
 * compute stream did before it is before all that is enqueued after it.
 *
 * order_find() goes through the lists as a rendezvous would execute them, which verify_deadlock
 * proves to come to an end, and keeps a vector clock (Fidge 1988, Mattern 1989) for every
 * stream: an entry is the last action of a stream that is certainly done. A clock has entries for
 * the streams of its own device, of all that it has links with, and of the next nearest, sixteen
 * devices in all or more: so what a walk takes grows with the actions and not with the devices.
 * Nothing is known of those farther away, so an order that holds only by way of them counts for
 * none: the waits for it stay, and the proofs do without it. */
#ifndef MDLC_ORDER_H
#define MDLC_ORDER_H

#include "program.h"

/* Of one device's list. Actions are numbers in the list; NONE: nothing. */
typedef struct {
    int *certain[STREAMS]; /* [actions]: last action of each of the device's other streams that is
                              done when it begins */
    int *free[2];    /* [actions], receives: last action of the receiver's compute and transfer
                        stream that is done when the message is written */
    int *arrived;    /* [actions], receives: first action of the compute stream that begins with
                        the message there; NONE */
    bool *next_step; /* [actions], receives: the first run of a step, or the rounding of weights
                        before it, begins with the messages of the step before there */
} Order;

/* For every device, in the arena; NULL where the lists cannot be gone through to their end. */
Order *order_find(Arena *a, const Program *p, bool eval);

/* Takes waits away that others imply, of the lists of a step or of an evaluation; what the links
 * always wait for stays. [links] each. false: the lists are stuck, and some waits are lost. */
bool order_reduce(Program *p, bool eval, bool *always_post, bool *always_take);

/* Waits that others imply are taken away, so that every one that is left is needed: what is
 * left is the transitive reduction (Aho, Garey, Ullman 1972) of the order that communicate()
 * asked for. Peer transfers: sets Action.after_post, Link.post_from and
 * Link.take_from; where a link's messages would follow no simple rule all of them wait. Needs:
 * waits as add_waits makes them with all their reasons; p->transfer is not TRANSFER_LINKS. */
void order_waits(Program *p);

#endif
