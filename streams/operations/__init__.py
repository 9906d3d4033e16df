"""Operations on what a model has learnt: retract one trainer, reinstate a voided range; one at a time a model."""
