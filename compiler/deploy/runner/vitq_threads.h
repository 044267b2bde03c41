/*
 * Parallel loops for vitq_static.c: helpers that wait for the next loop. With VITQ_NO_THREADS
 * (no pthreads on the device) every loop runs on the caller.
 */
#ifndef VITQ_THREADS_H_
#define VITQ_THREADS_H_

typedef struct { void *sync_handle; int32_t tasks; } vitq_group; /* TVMParallelGroupEnv */
typedef int vitq_lambda(int task, vitq_group *group, void *data);

#ifdef VITQ_NO_THREADS

typedef struct { int unused; } vitq_pool;

static int vitq_start(vitq_pool *pool, vitq_worker *workers, int threads) {
  (void)pool, (void)workers;
  return threads == 1 ? 0 : -1;
}
static int vitq_parallel(vitq_pool *pool, vitq_lambda *lambda, void *data) {
  vitq_group alone = {pool, 1};
  return lambda(0, &alone, data);
}
static int vitq_meet(vitq_pool *pool) {
  (void)pool;
  return -1;
}
static void vitq_stop(vitq_pool *pool) { (void)pool; }

#else

#include <pthread.h>

typedef struct {
  pthread_mutex_t lock;
  pthread_cond_t begin, end, met;
  pthread_t helpers[VITQ_MAX_THREADS];
  int threads, started;
  unsigned loop; /* number of the current loop */
  int waiting;   /* helpers that have not finished it */
  int arrived;   /* threads at the barrier inside it */
  unsigned barrier;
  int stopping, failed;
  vitq_lambda *lambda;
  void *data;
} vitq_pool;

typedef struct {
  vitq_pool *pool;
  vitq_worker *worker;
  int index;
} vitq_helper;

static int vitq_run_task(vitq_pool *pool, int task) {
  vitq_group group = {pool, pool->threads};
  const int failed = pool->lambda(task, &group, pool->data);
  if (failed) {
    pthread_mutex_lock(&pool->lock);
    pool->failed = failed;
    pthread_cond_broadcast(&pool->met); /* nobody waits for a task that has ended */
    pthread_mutex_unlock(&pool->lock);
  }
  return failed;
}

static int vitq_meet(vitq_pool *pool) {
  pthread_mutex_lock(&pool->lock);
  const unsigned barrier = pool->barrier;
  if (++pool->arrived == pool->threads) {
    pool->arrived = 0;
    ++pool->barrier;
    pthread_cond_broadcast(&pool->met);
  }
  while (pool->barrier == barrier && !pool->failed) pthread_cond_wait(&pool->met, &pool->lock);
  const int failed = pool->failed;
  pthread_mutex_unlock(&pool->lock);
  return failed;
}

static void *vitq_help(void *argument) {
  vitq_helper self = *(vitq_helper *)argument;
  vitq_pool *pool = self.pool;
  unsigned seen = 0;
  vitq_current = self.worker;
  pthread_mutex_lock(&pool->lock);
  ++pool->started;
  pthread_cond_signal(&pool->end);
  for (;;) {
    while (!pool->stopping && pool->loop == seen) pthread_cond_wait(&pool->begin, &pool->lock);
    if (pool->stopping) break;
    seen = pool->loop;
    pthread_mutex_unlock(&pool->lock);
    vitq_current->top = 0;
    vitq_run_task(pool, self.index);
    pthread_mutex_lock(&pool->lock);
    if (--pool->waiting == 0) pthread_cond_signal(&pool->end);
  }
  pthread_mutex_unlock(&pool->lock);
  return NULL;
}

static void vitq_stop(vitq_pool *pool) {
  if (pool->threads == 0) return;
  pthread_mutex_lock(&pool->lock);
  pool->stopping = 1;
  pthread_cond_broadcast(&pool->begin);
  pthread_mutex_unlock(&pool->lock);
  for (int i = 1; i < pool->threads; ++i) pthread_join(pool->helpers[i], NULL);
  pthread_cond_destroy(&pool->begin);
  pthread_cond_destroy(&pool->end);
  pthread_cond_destroy(&pool->met);
  pthread_mutex_destroy(&pool->lock);
}

static int vitq_start(vitq_pool *pool, vitq_worker *workers, int threads) {
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->begin, NULL);
  pthread_cond_init(&pool->end, NULL);
  pthread_cond_init(&pool->met, NULL);
  pool->threads = 1;
  for (int i = 1; i < threads; ++i) {
    vitq_helper helper = {pool, &workers[i], i};
    if (pthread_create(&pool->helpers[i], NULL, vitq_help, &helper) != 0) {
      vitq_stop(pool);
      return -1;
    }
    pthread_mutex_lock(&pool->lock);
    pool->threads = i + 1;
    while (pool->started < i) pthread_cond_wait(&pool->end, &pool->lock); /* it has read `helper` */
    pthread_mutex_unlock(&pool->lock);
  }
  return 0;
}

static int vitq_parallel(vitq_pool *pool, vitq_lambda *lambda, void *data) {
  pool->lambda = lambda, pool->data = data;
  if (pool->threads == 1) return vitq_run_task(pool, 0);
  pthread_mutex_lock(&pool->lock);
  pool->waiting = pool->threads - 1;
  pool->arrived = pool->failed = 0;
  ++pool->loop;
  pthread_cond_broadcast(&pool->begin);
  pthread_mutex_unlock(&pool->lock);
  vitq_run_task(pool, 0);
  pthread_mutex_lock(&pool->lock);
  while (pool->waiting > 0) pthread_cond_wait(&pool->end, &pool->lock);
  const int failed = pool->failed;
  pthread_mutex_unlock(&pool->lock);
  return failed;
}

#endif /* VITQ_NO_THREADS */

#endif /* VITQ_THREADS_H_ */
